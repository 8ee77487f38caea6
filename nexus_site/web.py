"""The web process: uvicorn with Nexus's limits.

uvicorn gives what Nexus's streams need: a send waits while its client does not read, a body comes
as fast as its endpoint takes it, and a client that hangs up is told to whoever works for it.
"""

from __future__ import annotations

import socket

import uvicorn
from django.conf import settings
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

SITE = "nexus_site.asgi:application"
MAX_HEAD = 64 * 1024  # bytes of a request that are neither body nor complete
MAX_MESSAGE = 1 << 20  # bytes of a websocket's message
KEEP_ALIVE = 60  # seconds that an idle connection stays open
PING_INTERVAL = 20.0  # seconds; nexusctl takes a longer silence for a lost connection
PING_TIMEOUT = 30.0
GRACE = 3  # seconds for answers that are under way at a stop; daemon.STOP_TIMEOUT is more
BACKLOG = 1024


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with a bound on headers, trailers and chunk sizes, of which it has none."""

    _incomplete = 0  # bytes that have come since something was last complete

    def data_received(self, data: bytes) -> None:
        self._incomplete += len(data)
        super().data_received(data)
        if self._incomplete > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_headers_complete(self) -> None:
        self._incomplete = 0
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._incomplete = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._incomplete = 0
        super().on_message_complete()


def server(site: object = SITE) -> uvicorn.Server:
    """uvicorn for ``site``, an ASGI application or its name. Logs as Django's settings say."""
    return uvicorn.Server(
        uvicorn.Config(
            site,  # type: ignore[arg-type]
            interface="asgi3",
            http=HttpProtocol,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            ws_ping_interval=PING_INTERVAL,
            ws_ping_timeout=PING_TIMEOUT,
            ws_per_message_deflate=False,  # both ends are on one machine, or near
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,  # nobody is believed who says that he asks for somebody else
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that takes connections there; ``::`` stands for all addresses, IPv4's too."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server(
        (host, port),
        family=family,
        backlog=BACKLOG,
        dualstack_ipv6=host == "::" and socket.has_dualstack_ipv6(),
    )


def serve() -> None:
    """Serve where the settings say until SIGTERM or SIGINT."""
    server().run([listen(settings.NEXUS.host, settings.NEXUS.port)])

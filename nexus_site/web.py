"""The web process: uvicorn with Nexus's limits.

uvicorn gives what Nexus's streams need: a send waits while its client does not read, a body comes
as fast as its endpoint takes it, and a client that hangs up is told to whoever works for it.
"""

from __future__ import annotations

import asyncio
import socket

import uvicorn
from django.conf import settings
from django.urls import get_resolver
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from nexus_site.core.garbage import spare_what_is_loaded

MAX_HEAD = 64 * 1024  # bytes of a request that are neither body nor complete
HEAD_PATIENCE = 30  # seconds that a client has for the head of a request
MAX_MESSAGE = 1 << 20  # bytes of a websocket's message
KEEP_ALIVE = 60  # seconds that an idle connection stays open
PING_INTERVAL = 20.0  # seconds; nexusctl takes a longer silence for a lost connection
PING_TIMEOUT = 30.0
GRACE = 3  # seconds for answers that are under way at a stop; daemon.STOP_TIMEOUT is more
BACKLOG = 1024


class HttpProtocol(HttpToolsProtocol):
    """uvicorn's, with bounds that it has not: on headers, trailers and chunk sizes, and on the
    time that a head may take."""

    _incomplete = 0  # bytes that have come since something was last complete
    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._expect_head()

    def connection_lost(self, exc: Exception | None) -> None:
        self._have_head()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._incomplete += len(data)
        super().data_received(data)
        if self._incomplete > MAX_HEAD and not self.transport.is_closing():
            self.send_400_response("The head of the request is too long.")

    def on_message_begin(self) -> None:
        self._expect_head()
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        self._incomplete = 0
        self._have_head()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._incomplete = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._incomplete = 0
        super().on_message_complete()

    def _expect_head(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(HEAD_PATIENCE, self.transport.abort)

    def _have_head(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def server(site: object) -> uvicorn.Server:
    """uvicorn for ``site``, an ASGI application. Logs as Django's settings say."""
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
    from nexus_site.asgi import application  # sets Django up

    _ = get_resolver().url_patterns  # every page and endpoint, which the first request would load
    spare_what_is_loaded()
    server(application).run([listen(settings.NEXUS.host, settings.NEXUS.port)])

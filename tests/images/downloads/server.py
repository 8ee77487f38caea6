"""A server on a real socket that does what mirrors do, right and wrong."""

from __future__ import annotations

import hashlib
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Page:
    """What a path answers with. ``failures`` are statuses answered first, one a request."""

    content: bytes = b""
    status: int = 200
    location: str = ""
    etag: str = "auto"
    ranges: bool = True
    failures: list[int] = field(default_factory=list)
    cut_after: list[int] = field(default_factory=list)  # bytes sent before hanging up, a request
    pause: float = 0.0  # seconds between two pieces
    piece: int = 64 << 10
    before_piece: Callable[[int], None] = lambda number: None
    length: bool = True

    @property
    def tag(self) -> str:
        if self.etag == "auto":
            return f'"{hashlib.sha256(self.content).hexdigest()[:16]}"'
        return self.etag


@dataclass
class Mirror:
    """The server's address, its pages, and the requests it has seen."""

    url: str
    pages: dict[str, Page] = field(default_factory=dict)
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    def add(self, path: str, content: bytes = b"", **values: object) -> str:
        """Answer ``path`` from now on; its URL."""
        self.pages[path] = Page(content, **values)  # type: ignore[arg-type]
        return f"{self.url}{path}"

    def ranges(self, path: str) -> list[str | None]:
        """The Range header of each request for ``path``."""
        return [headers.get("range") for seen, headers in self.requests if seen == path]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror

    def log_message(self, *_: object) -> None:
        pass

    def handle(self) -> None:
        with suppress(ConnectionResetError, BrokenPipeError, ssl.SSLError):  # left by the client
            super().handle()

    def do_GET(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.mirror.requests.append((self.path, headers))
        page = self.mirror.pages.get(self.path, Page(status=404))
        status = page.failures.pop(0) if page.failures else page.status
        if page.location:
            return self._head(status, {"Location": page.location, "Content-Length": "0"})
        if status != 200:
            return self._head(status, {"Content-Length": "0"})
        with suppress(BrokenPipeError, ConnectionResetError):
            self._content(page, headers)
        return None

    def _content(self, page: Page, headers: dict[str, str]) -> None:
        start = _wanted_start(page, headers)
        if start >= len(page.content) > 0:
            return self._head(416, {"Content-Length": "0"})
        body, more = page.content[start:], {"Content-Length": str(len(page.content) - start)}
        if not page.length:
            more = {"Connection": "close"}
        if page.tag:
            more["ETag"] = page.tag
        if start:
            more["Content-Range"] = f"bytes {start}-{len(page.content) - 1}/{len(page.content)}"
        self._head(206 if start else 200, more)
        end = min(page.cut_after.pop(0), len(body)) if page.cut_after else len(body)
        for number, at in enumerate(range(0, end, page.piece)):
            page.before_piece(number)
            self.wfile.write(body[at : min(at + page.piece, end)])
            self.wfile.flush()
            time.sleep(page.pause)
        if end < len(body) or not page.length:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)
        return None

    def _head(self, status: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()


def _wanted_start(page: Page, headers: dict[str, str]) -> int:
    wanted = headers.get("range", "")
    if not wanted or not page.ranges or headers.get("if-range", page.tag) != page.tag:
        return 0
    return int(wanted.removeprefix("bytes=").rstrip("-"))


@contextmanager
def running_mirror(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[Mirror]:
    handler = type("Handler", (_Handler,), {})
    server = ThreadingHTTPServer((host, 0), handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls else "http"
    mirror = handler.mirror = Mirror(f"{scheme}://{host}:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield mirror
    finally:
        server.shutdown()
        server.server_close()
        thread.join()

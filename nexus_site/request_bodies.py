"""Bodies of some requests reach their endpoint while they come, and wait for it.

daphne takes in the whole body of a request, then hands it over at once, in memory. Files on their
way into a VM are handed on piece by piece instead: what their endpoint has not taken stops the
client, and a client that hangs up is known at once. The endpoint reads them by
``nexus_site.core.streaming.incoming``; its request has no body otherwise.
"""

from __future__ import annotations

import asyncio
import io
import re
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any
from weakref import WeakKeyDictionary

from daphne.http_protocol import WebRequest  # type: ignore[import-untyped]
from daphne.server import Server  # type: ignore[import-untyped]
from twisted.web import http

from nexus_site.core.errors import Retryable
from nexus_site.core.streaming import BODY

STREAMED = re.compile(rb"/v1/vms/[^/]+/files/(content|archive)")
MOST = 1 << 20  # bytes that wait for the endpoint
STALL = 120.0  # seconds without a byte after which the upload has broken off
LINGER = 30.0  # seconds in which the rest is dropped, once the answer is there

_got_length = WebRequest.gotLength
_handle_chunk = WebRequest.handleContentChunk
_begin = WebRequest.requestReceived
_finish = WebRequest.finish
_lost = WebRequest.connectionLost
_create_application = Server.create_application


class Body:
    """The bytes of one request on their way in; iterate it once."""

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._pieces: deque[bytes] = deque()
        self._size = 0
        self._news = asyncio.Event()
        self._dropping: Callable[[], None] | None = None
        self.over = False  # all has come, or nothing comes any more
        self._broken = False

    def feed(self, data: bytes) -> None:
        if self._dropping:
            return
        self._pieces.append(data)
        self._size += len(data)
        self._news.set()
        if self._size >= MOST:
            self._transport.pauseProducing()

    def end(self, *, broken: bool = False) -> None:
        self.over, self._broken = True, self._broken or broken
        self._news.set()
        if self._dropping and not broken:
            self._dropping()

    def drop_rest(self, then: Callable[[], None]) -> None:
        """Take the rest for nobody; ``then`` is called at its end or after ``LINGER``."""
        self._dropping = then
        self._take()
        asyncio.get_running_loop().call_later(LINGER, then)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            while data := self._take():
                yield data
            if self._broken:
                raise _broken_off()
            if self.over:
                return
            self._news.clear()
            try:
                async with asyncio.timeout(STALL):
                    await self._news.wait()
            except TimeoutError:
                raise _broken_off() from None

    def _take(self) -> bytes:
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._size >= MOST and not self.over:
            self._transport.resumeProducing()
        self._size = 0
        return data


def _broken_off() -> Retryable:
    return Retryable("The upload broke off.", hint="Send the file again.", code="upload-broken")


_bodies: WeakKeyDictionary[WebRequest, Body] = WeakKeyDictionary()


def got_length(request: Any, length: int | None) -> None:
    """The headers are there: one that is streamed begins now."""
    channel = request.channel
    if not _is_streamed(request):
        _got_length(request, length)
        return
    _bodies[request] = Body(channel._networkProducer)
    channel.setTimeout(None)  # the body has its own patience
    channel.persistent = False  # what comes after an answer that came early is no request
    request.responseHeaders.setRawHeaders(b"Connection", [b"close"])
    request.content = io.BytesIO()
    _begin(request, channel._command, channel._path, channel._version)


def _is_streamed(request: Any) -> bool:
    path = request.channel._path.partition(b"?")[0]
    upload = request.channel._command == b"PUT" and STREAMED.fullmatch(path) is not None
    return upload and not request.requestHeaders.hasHeader(b"Upgrade")


def handle_chunk(request: Any, data: bytes) -> None:
    body = _bodies.get(request)
    if body is None:
        _handle_chunk(request, data)
    else:
        body.feed(data)


def received(request: Any, command: bytes, path: bytes, version: bytes) -> None:
    """All of the request is there."""
    body = _bodies.get(request)
    if body is None:
        _begin(request, command, path, version)
    else:
        body.end()


def finish(request: Any) -> None:
    """The answer is complete. A client that still sends would lose it, were it hung up on."""
    body = _bodies.get(request)
    if body is None or body.over:
        _finish(request)
    else:
        body.drop_rest(lambda: _finish_once(request))


def _finish_once(request: Any) -> None:
    if not request.finished and request.channel is not None:
        _finish(request)


def lost(request: Any, reason: object) -> None:
    body = _bodies.get(request)
    if body is not None and not body.over:
        body.end(broken=True)
    _lost(request, reason)


def create_application(server: Any, protocol: Any, scope: dict[str, Any]) -> Any:
    body = _bodies.get(protocol) if isinstance(protocol, http.Request) else None
    if body is not None:
        scope[BODY] = body
    return _create_application(server, protocol, scope)


def install() -> None:
    """Have daphne do so in this process."""
    WebRequest.gotLength = got_length
    WebRequest.handleContentChunk = handle_chunk
    WebRequest.requestReceived = received
    WebRequest.finish = finish
    WebRequest.connectionLost = lost
    Server.create_application = create_application

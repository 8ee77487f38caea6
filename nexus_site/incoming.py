"""Bodies of some requests reach their endpoint while they come, and wait for it.

Django takes in the whole body of a request before it begins. Files on their way into a VM are
handed on piece by piece instead: what their endpoint has not taken stops the client. The endpoint
reads them by ``nexus_site.core.streaming.incoming``; its request has no body otherwise.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from nexus_site.core.errors import Retryable
from nexus_site.core.streaming import BODY

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[dict[str, Any], Receive, Send], Awaitable[None]]

STREAMED = re.compile(r"/v1/vms/[^/]+/files/(content|archive)")
STALL = 120.0  # seconds without a byte after which the upload has broken off
LINGER = 30.0  # seconds in which the rest is dropped, once the answer is there


class Incoming:
    """ASGI middleware that streams the uploads of files into VMs."""

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT" and STREAMED.fullmatch(scope["path"]):
            body = Body(receive, send)
            await self._application({**scope, BODY: body}, body.receive, body.send)
        else:
            await self._application(scope, receive, send)


class Body:
    """The bytes of one request on their way in; iterate it once."""

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive, self._send = receive, send
        self._over = asyncio.Event()  # all has come, or nothing comes any more
        self._told = self._broken = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self._over.is_set():
            try:
                async with asyncio.timeout(STALL):
                    data = await self._take()
            except TimeoutError:
                raise _broken_off() from None
            if self._broken:
                raise _broken_off()
            if data:
                yield data

    async def _take(self) -> bytes:
        message = await self._receive()
        self._broken = message["type"] == "http.disconnect"
        if self._broken or not message.get("more_body", False):
            self._over.set()
        data: bytes = message.get("body", b"")
        return data

    async def receive(self) -> Message:
        """What Django is told: there is no body; later, that the client has hung up."""
        if not self._told:
            self._told = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self._over.wait()
        return {"type": "http.disconnect"} if self._broken else await self._receive()

    async def send(self, message: Message) -> None:
        """Pass the answer on. A client that still sends would lose it, were it hung up on."""
        if self._over.is_set():
            await self._send(message)
        elif message["type"] == "http.response.start":
            # What comes after an answer that came early is no request.
            headers = [*message.get("headers", []), (b"connection", b"close")]
            await self._send({**message, "headers": headers})
        elif message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._drop_rest()
            await self._send({"type": "http.response.body"})

    async def _drop_rest(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(LINGER):
                while not self._over.is_set():
                    await self._take()


def _broken_off() -> Retryable:
    return Retryable("The upload broke off.", hint="Send the file again.", code="upload-broken")

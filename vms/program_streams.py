"""The output of programs in VMs, as text or base64, and as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar, cast

from channels.db import database_sync_to_async
from django.http import HttpRequest, StreamingHttpResponse

from nexus_site.core import consumers
from nexus_site.core.errors import NexusError, as_nexus_error
from nexus_site.core.problems import unauthenticated

T = TypeVar("T")

EVENT_STREAM = "text/event-stream"
#: For the OpenAPI document: an answer that may be a stream of events.
EVENTS: dict[str, Any] = {"responses": {200: {"content": {EVENT_STREAM: {}}}}}
MAX_OUTPUT = 1 << 20  # bytes that an answer holds
KEEP_ALIVE = 15.0  # seconds of silence after which a stream says it is alive
ALIVE = ": alive\n\n"
NAMES = {1: "stdout", 2: "stderr"}


def wants_events(request: HttpRequest) -> bool:
    """Whether the caller asks for a stream."""
    return EVENT_STREAM in request.headers.get("Accept", "")


def encoded(data: bytes | bytearray, encoding: str) -> str:
    """Output as an answer has it; text replaces what is no UTF-8."""
    if encoding == "base64":
        return base64.b64encode(data).decode()
    return data.decode("utf-8", "replace")


class Pieces:
    """One output in pieces; a character cut in two is put together."""

    def __init__(self, encoding: str) -> None:
        self._decoder = None
        if encoding == "text":
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @property
    def pending(self) -> int:
        """How many bytes of a character wait for the rest of it."""
        return len(self._decoder.getstate()[0]) if self._decoder else 0

    def take(self, data: bytes) -> dict[str, str]:
        if self._decoder is None:
            return {"base64": base64.b64encode(data).decode()}
        return {"text": self._decoder.decode(data)}

    def end(self) -> dict[str, str] | None:
        """What is left, if anything."""
        text = self._decoder.decode(b"", final=True) if self._decoder else ""
        return {"text": text} if text else None


def message(event: str, data: dict[str, Any], offset: int | None = None) -> str:
    """One event; an output's ``id`` is how many bytes of output there were with it."""
    number = "" if offset is None else f"id: {offset}\n"
    return f"event: {event}\n{number}data: {json.dumps(data)}\n\n"


def event_stream(messages: AsyncIterator[str], close: Callable[[], None]) -> StreamingHttpResponse:
    """``messages`` as they come; ``close`` is called in any case, and may be called twice."""
    response = StreamingHttpResponse(
        _to_the_end(messages, close),
        content_type=EVENT_STREAM,
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )
    # A caller who is gone before the first message leaves a generator that never began.
    cast(Any, response)._resource_closers.append(close)
    return response


async def _to_the_end(
    messages: AsyncIterator[str], close: Callable[[], None]
) -> AsyncIterator[str]:
    try:
        async for text in messages:
            yield text
    except NexusError as error:
        yield message("error", as_nexus_error(error).problem())
    finally:
        close()


async def while_allowed(
    request: HttpRequest, read: Callable[[], Awaitable[T | None]]
) -> AsyncIterator[T | None]:
    """What ``read`` gives, up to its None; a None of its own where a stream should say that it
    is alive. Raises when the caller may no more."""
    reading, look_at = asyncio.ensure_future(read()), _clock() + KEEP_ALIVE
    try:
        while True:
            await asyncio.wait({reading}, timeout=max(look_at - _clock(), 0))
            if _clock() >= look_at:
                await database_sync_to_async(_require_operate)(request)
                look_at = _clock() + KEEP_ALIVE
                yield None
            if reading.done():
                if (output := reading.result()) is None:
                    return
                reading = asyncio.ensure_future(read())
                yield output
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


def _require_operate(request: HttpRequest) -> None:
    caller = consumers.caller_of(cast(Any, request).scope)
    if caller is None:
        raise unauthenticated()
    caller.require("operate")


def _clock() -> float:
    return asyncio.get_running_loop().time()

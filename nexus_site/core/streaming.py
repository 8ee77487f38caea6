"""Answers that are made, and uploads that are taken, piece by piece, in constant memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from urllib.parse import quote

from asgiref.sync import sync_to_async
from django.http import HttpRequest, StreamingHttpResponse

BODY = "nexus.body"  # in the scope of a request whose body is still coming
PIECE = 1 << 20


class Download(StreamingHttpResponse):
    """A file for the caller to keep, from an iterator of its bytes.

    Under ASGI each piece is made in a thread when the one before has gone out; Django's own
    class would make all of them first.
    """

    def __init__(self, pieces: Iterator[bytes], name: str, size: int | None = None) -> None:
        super().__init__(pieces, content_type="application/octet-stream")
        self.headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(name, safe='')}"
        self.headers["X-Content-Type-Options"] = "nosniff"
        if size is not None:
            self.headers["Content-Length"] = str(size)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        pieces = iter(self)
        following = sync_to_async(lambda: next(pieces, None), thread_sensitive=False)
        while (piece := await following()) is not None:
            yield piece


async def incoming(request: HttpRequest) -> AsyncIterator[bytes]:
    """The body of a request as it comes: who sends it waits for who takes it.

    Raises ``Retryable`` where it breaks off.
    """
    body: AsyncIterator[bytes] | None = getattr(request, "scope", {}).get(BODY)
    if body is None:  # it has come already, as in front of other servers than Nexus's own
        while data := request.read(PIECE):
            yield data
        return
    async for data in body:
        yield data

"""The guest's files: looked at, read, written, as single files and as archives of tar.

Everything streams in constant memory and waits for whoever is slower. Paths and names are texts
in which bytes that are no UTF-8 are lone surrogates, as ``os.fsdecode`` makes them; show them to
people by ``printable``. What tricks a path plays it plays inside the guest.
"""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self, TypeVar

from guest_agent.calls import AgentCalls
from guest_agent.fields import MAX_SECONDS, Fields, bytes_field, number_field
from guest_agent.refusals import explained
from guest_agent.streams import ByteStream
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Invalid, Retryable

STALL = 120.0  # seconds in which at least some bytes must get on
MAX_PIECE = 1024 * 1024  # bytes that must get on within STALL
PAGE = 500  # names in one page of a directory
MAX_PAGE = 1000
MAX_NAME, MAX_TARGET = 255, 4096  # bytes
T = TypeVar("T")
TYPES = ("file", "directory", "link", "fifo", "socket", "device")


@dataclass(frozen=True, slots=True)
class FileInfo:
    """One file of the guest; ``modified`` in epoch seconds, ``target`` of a symbolic link.

    ``type`` is one of ``TYPES``, or "unknown".
    """

    name: str
    type: str
    size: int
    mode: int
    uid: int
    gid: int
    modified: float
    target: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> FileInfo:
        """The checked facts; ``ProtocolError`` for those that cannot be."""
        kind = fields.get("type")
        return cls(
            name=_name(fields),
            type=kind if kind in TYPES else "unknown",
            size=bytes_field(fields, "size"),
            mode=int(number_field(fields, "mode", 0o7777)),
            uid=int(number_field(fields, "uid", 2**32)),
            gid=int(number_field(fields, "gid", 2**32)),
            modified=number_field(fields, "modified", MAX_SECONDS),
            target=_raw(fields, "target", MAX_TARGET) if kind == "link" else None,
        )


@dataclass(frozen=True, slots=True)
class Page:
    """Some files of a directory, in the order of their names' bytes; are there ``more``?"""

    files: tuple[FileInfo, ...]
    more: bool


@dataclass(frozen=True, slots=True)
class Unpacked:
    """What an archive held; ``skipped`` counts devices, pipes and the like."""

    entries: int
    bytes: int
    skipped: int


def printable(name: str) -> str:
    """The name as people may see it: what is no text, or disturbs one, becomes escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)


class Download:
    """Bytes on their way from the guest. Iterate it once, and use ``with`` or ``close`` it.

    ``info`` is the file, or the file at the archive's root.
    """

    def __init__(self, stream: ByteStream, info: FileInfo) -> None:
        self.info = info
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """The bytes as they come; ``Retryable`` where the guest does not give all of them."""
        try:
            while data := await _in_time(self._stream.read()):
                yield data
            self._stream.write_eof()
        finally:
            self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Be done with it."""
        self._stream.reset()


class Files:
    """The files of one VM, over its connection or the gateway.

    All calls raise what ``AgentCalls`` do, and for what the guest's system says
    ``NotFound``, ``Conflict`` and ``Invalid``. Paths are absolute.
    """

    def __init__(self, connection: AgentCalls[Any]) -> None:
        self._connection = connection

    async def stat(self, path: str, *, follow: bool = False, timeout: float = 10) -> FileInfo:
        """One file; of a symbolic link the link itself, or what it leads to."""
        reply = await self._do("stat", timeout, path=path, follow=follow)
        with self._connection.checking():
            return FileInfo.parse(reply)

    async def list(
        self, path: str, *, after: str = "", limit: int = PAGE, timeout: float = 30
    ) -> Page:
        """The files of a directory whose names come after ``after``, at most ``limit`` (1000)."""
        header = {"op": "list", "path": _path(path), "after": after, "limit": limit}
        with explained():
            reply, records = await self._connection.records(header, limit, timeout)
        with self._connection.checking():
            present = (record for record in records if record.get("type") != "gone")
            files = tuple(FileInfo.parse(record) for record in present)
            _check_order([after, *(file.name for file in files)])
            return Page(files, more=reply.get("more") is True)

    async def read(
        self, path: str, *, offset: int = 0, length: int | None = None, timeout: float = 30
    ) -> Download:
        """A file's bytes from ``offset`` on, ``length`` of them or all that there are."""
        header = {"op": "read", "path": _path(path), "offset": offset, "length": length}
        return await self._download(header, timeout)

    async def read_tar(
        self, path: str, *, name: str | None = None, timeout: float = 30
    ) -> Download:
        """A file or a directory with all that is in it, as an archive.

        Its entries begin with ``name``, the last part of ``path`` if it is None. With "" a
        directory's files are at the archive's root.
        """
        return await self._download({"op": "read-tar", "path": _path(path), "name": name}, timeout)

    async def write(
        self,
        path: str,
        data: AsyncIterable[bytes],
        *,
        size: int | None = None,
        mode: int | None = None,
        user: str = "",
        parents: bool = False,
        offset: int | None = None,
        timeout: float = 30,
    ) -> int:
        """Write a file and return the number of its bytes.

        It takes the place of the one before at once, when all has come; that one's mode and
        owner stay unless others are given (``user`` as of a program). ``size``, where it is
        known, must be what comes. ``parents`` makes missing directories. With ``offset`` the
        bytes go into the file itself, from there on, as they come.
        """
        header = {
            "op": "write",
            "path": _path(path),
            "size": size,
            "mode": mode,
            "user": user,
            "parents": parents,
            "offset": offset,
        }
        reply = await self._upload(header, data, timeout)
        with self._connection.checking():
            return bytes_field(reply, "size")

    async def write_tar(
        self,
        path: str,
        data: AsyncIterable[bytes],
        *,
        user: str = "",
        keep_owner: bool = False,
        parents: bool = False,
        timeout: float = 30,
    ) -> Unpacked:
        """Unpack an archive into the directory ``path``, and nowhere else.

        Everything belongs to ``user`` (root), or with ``keep_owner`` to whom the archive says.
        ``parents`` makes the directory where it is missing. What was unpacked before something
        failed stays.
        """
        header = {
            "op": "write-tar",
            "path": _path(path),
            "user": user,
            "keep_owner": keep_owner,
            "parents": parents,
        }
        reply = await self._upload(header, data, timeout)
        with self._connection.checking():
            counts = (bytes_field(reply, key) for key in ("entries", "bytes", "skipped"))
            return Unpacked(*counts)

    async def remove(self, path: str, *, recursive: bool = False, timeout: float = 120) -> None:
        """Remove a file or an empty directory; ``recursive``: a directory and all that is in it."""
        await self._do("remove", timeout, path=path, recursive=recursive)

    async def mkdir(
        self,
        path: str,
        *,
        mode: int = 0o755,
        user: str = "",
        parents: bool = False,
        timeout: float = 10,
    ) -> None:
        """Make a directory; with ``parents`` those above it too, and it may be there already."""
        await self._do("mkdir", timeout, path=path, mode=mode, user=user, parents=parents)

    async def move(self, path: str, to: str, *, replace: bool = False, timeout: float = 10) -> None:
        """Give a file another name in its file system; ``replace`` what has that name."""
        await self._do("move", timeout, path=path, to=_path(to), replace=replace)

    async def _do(self, operation: str, timeout: float, *, path: str, **more: Any) -> Fields:
        header = {"op": operation, "path": _path(path), **more}
        with explained():
            return await self._connection.exchange(header, timeout)

    async def _download(self, header: dict[str, Any], timeout: float) -> Download:
        with explained():
            stream, reply = await self._connection.ask(header, timeout)
        try:
            with self._connection.checking():
                return Download(stream, FileInfo.parse(reply))
        except BaseException:
            stream.reset()
            raise

    async def _upload(
        self, header: dict[str, Any], data: AsyncIterable[bytes], timeout: float
    ) -> Fields:
        """Send the bytes once the agent is ready for them; its second answer."""
        with explained():
            stream, _ = await self._connection.ask(header, timeout)
            sending = asyncio.create_task(_send(stream, data))
            answering = asyncio.create_task(self._connection.read_reply(stream))
            try:
                await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
                if not answering.done():  # the agent may refuse what comes while it comes
                    await sending
                return await _in_time(answering)
            finally:
                stream.reset()
                for task in (sending, answering):
                    task.cancel()
                await asyncio.gather(sending, answering, return_exceptions=True)


async def _send(stream: ByteStream, data: AsyncIterable[bytes]) -> None:
    async for piece in data:
        for start in range(0, len(piece), MAX_PIECE):
            await _in_time(stream.write(memoryview(piece)[start : start + MAX_PIECE]))
    stream.write_eof()


async def _in_time(work: Awaitable[T]) -> T:
    try:
        async with asyncio.timeout(STALL):
            return await work
    except TimeoutError:
        raise Retryable(
            f"The VM took or gave no bytes for {STALL:g} s.", code="agent-timeout"
        ) from None


def _check_order(names: list[str]) -> None:
    """Names that go on: else one could ask for the next page for ever."""
    keys = [os.fsencode(name) for name in names]
    if any(later <= earlier for earlier, later in pairwise(keys)):
        raise ProtocolError("it listed names in no order")


def _path(path: str) -> str:
    if not path.startswith("/") or "\0" in path:
        raise Invalid(f"“{printable(path)}” is not an absolute path.", code="bad-path")
    return path


def _raw(fields: Fields, key: str, limit: int) -> str:
    """A text of bytes, as they are."""
    value = fields.get(key)
    try:
        if isinstance(value, str) and len(value.encode("utf-8", "surrogateescape")) <= limit:
            return value
    except UnicodeEncodeError:
        pass
    raise ProtocolError(f"{key} is no file's")


def _name(fields: Fields) -> str:
    name = _raw(fields, "name", MAX_NAME)
    if name != "/" and (name in ("", ".", "..") or "/" in name or "\0" in name):
        raise ProtocolError("name is no file's")
    return name

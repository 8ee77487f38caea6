"""The sockets over which agents are reached.

QEMU listens on a Unix socket for the guest's virtio-serial port, and Nexus dials it; under
Firecracker the guest dials, and Nexus listens. The path of a VM's directory may be longer than
the 108 bytes that a socket's address has: the directory is opened first and named through it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]
OnConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]

BACKLOG = 8


class AgentLine(Protocol):
    """The way to one VM's agent, whoever dials."""

    async def connect(self) -> Streams:
        """The next connection; ``OSError`` where nobody listens yet."""

    async def superseded(self) -> None:
        """Returns when the agent calls anew: the connection before that one is dead, even if
        it looks alive (a VMM that was paused for a snapshot does not say so)."""

    def close(self) -> None:
        """Stop listening; connections go on."""


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket's address, for as long as the block lasts."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def connect(path: Path) -> Streams:
    """Dial the VMM's socket; ``OSError`` while there is none or nobody listens."""
    with _short_path(path) as name:
        return await asyncio.open_unix_connection(name)


async def listen(path: Path, on_connection: OnConnection) -> asyncio.Server:
    """Listen on ``path``, in place of whatever lies there; readable by this user only.

    ``on_connection(reader, writer)`` is called for each connection of the guest and must return
    at once. Closing the server and removing the file are the caller's.
    """
    return await asyncio.start_unix_server(on_connection, sock=_bound(path))


def _bound(path: Path, uid: int | None = None) -> socket.socket:
    """A socket at ``path`` that only its owner may use: ``uid``, or else we."""
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # the file gets the mode that the socket has
        with _short_path(path) as name:
            listener.bind(name)
        if uid is not None:
            # The directory may be that user's: never through a link that it puts there.
            os.chown(path, uid, uid, follow_symlinks=False)
    except OSError:
        listener.close()
        raise
    return listener


class DialledLine:
    """The VMM listens on ``path`` (a virtio-serial port)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    async def connect(self) -> Streams:
        return await connect(self.path)

    async def superseded(self) -> None:
        await asyncio.Event().wait()  # nobody calls here

    def close(self) -> None:
        pass


class AwaitedLine:
    """We listen on ``path``, and a guest's calls arrive there (vsock under Firecracker).

    Calls wait in the kernel until they are asked for, and only the newest counts: a guest that
    calls a thousand times costs nothing. ``uid`` is the VMM's user, if it is not ours.
    """

    def __init__(self, path: Path, uid: int | None = None) -> None:
        self.path = path
        self._listener = _bound(path, uid)
        self._file = os.lstat(path).st_ino
        self._listener.setblocking(False)
        self._listener.listen(BACKLOG)

    async def connect(self) -> Streams:
        caller, _ = await asyncio.get_running_loop().sock_accept(self._listener)
        for _ in range(BACKLOG + 1):  # who goes on calling meanwhile waits for the next time
            newer = self._waiting()
            if newer is None:
                break
            caller.close()
            caller = newer
        return await asyncio.open_unix_connection(sock=caller)

    async def superseded(self) -> None:
        loop, called = asyncio.get_running_loop(), asyncio.Event()
        loop.add_reader(self._listener, called.set)
        try:
            await called.wait()
        finally:
            loop.remove_reader(self._listener)

    def close(self) -> None:
        """Stop listening; the file goes, unless the next listener has put its own there."""
        self._listener.close()
        with contextlib.suppress(FileNotFoundError):
            if os.lstat(self.path).st_ino == self._file:
                self.path.unlink()

    def _waiting(self) -> socket.socket | None:
        try:
            caller, _ = self._listener.accept()
        except OSError:  # most often that nobody waits
            return None
        caller.setblocking(False)
        return caller


def open_line(path: Path, *, guest_dials: bool, uid: int | None = None) -> AgentLine:
    """The line to the agent behind the socket at ``path``; ``OSError`` if we cannot listen."""
    return AwaitedLine(path, uid) if guest_dials else DialledLine(path)

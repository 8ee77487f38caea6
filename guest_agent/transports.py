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

OnConnection = Callable[[asyncio.StreamReader, asyncio.StreamWriter], None]


@contextlib.contextmanager
def _short_path(path: Path) -> Iterator[str]:
    """A name for ``path`` that fits into a socket's address, for as long as the block lasts."""
    directory = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{directory}/{path.name}"
    finally:
        os.close(directory)


async def connect(path: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Dial the VMM's socket; ``OSError`` while there is none or nobody listens."""
    with _short_path(path) as name:
        return await asyncio.open_unix_connection(name)


async def listen(path: Path, on_connection: OnConnection) -> asyncio.Server:
    """Listen on ``path``, in place of whatever lies there; readable by this user only.

    ``on_connection(reader, writer)`` is called for each connection of the guest and must return
    at once. Closing the server and removing the file are the caller's.
    """
    return await asyncio.start_unix_server(on_connection, sock=_bound(path))


def _bound(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _short_path(path) as name:
            listener.bind(name)
        path.chmod(0o600)
    except OSError:
        listener.close()
        raise
    return listener

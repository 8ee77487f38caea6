"""A disk that is being written: its zeros stay holes, and no more data comes than there is room."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from images.files import Progress
from nexus_site.core.errors import Invalid, Retryable

MAX_SIZE = 16 << 40  # bytes of a drive
MIB = 1 << 20
_GRAIN = 64 << 10  # zeros are looked for in pieces of this size
_ZEROS = bytes(_GRAIN)
_KEPT_FREE = 16  # one part in so many of what is free is left to everybody else


def room_on(directory: Path) -> int:
    """How many bytes may be written below ``directory``."""
    free = shutil.disk_usage(directory).free
    return free - free // _KEPT_FREE


def whole_mib(size: int) -> int:
    """The size of a drive that holds a disk of ``size`` bytes; ``Invalid`` beyond all limits."""
    if not 0 < size <= MAX_SIZE:
        raise Invalid(f"A drive has 1 to {MAX_SIZE} bytes, not {size}.", code="drive-size")
    return -(-size // MIB) * MIB


def require_room(needed: int, room: int) -> None:
    """Raise ``Retryable`` unless so many bytes fit."""
    if needed > room:
        raise Retryable(
            f"The disk is too full: the drive has {needed} bytes of data and more, "
            f"there is room for {room}.",
            hint="Free some space in the data directory, then try again.",
            code="disk-full",
        )


class Target:
    """The file of a drive; bytes that nobody writes are zeros.

    ``expected`` counts the bytes that will come, for ``progress``; ``room`` those that may take
    space.
    """

    def __init__(self, fd: int, size: int, expected: int, room: int, progress: Progress) -> None:
        self.size = whole_mib(size)
        self._fd, self._room, self._progress = fd, room, progress
        self._expected, self._seen, self._written = expected, 0, 0
        os.ftruncate(fd, self.size)

    def write(self, offset: int, data: bytes) -> None:
        """Write ``data`` where it belongs. ``Retryable`` (``disk-full``), ``OSError``."""
        if offset < 0 or offset + len(data) > self.size:
            raise Invalid("The disk has data behind its end.", code="archive-damaged")
        for at in range(0, len(data), _GRAIN):
            piece = data[at : at + _GRAIN]
            if piece != _ZEROS[: len(piece)]:
                self._written += len(piece)
                require_room(self._written, self._room)
                _write_all(self._fd, piece, offset + at)
        self._seen += len(data)
        self._progress(self._seen, self._expected)


@contextmanager
def target(path: Path, size: int, expected: int, room: int, progress: Progress) -> Iterator[Target]:
    """An empty file to write a disk of ``size`` bytes into."""
    fd = os.open(path, os.O_WRONLY | os.O_TRUNC | os.O_CLOEXEC)
    try:
        yield Target(fd, size, expected, room, progress)
    finally:
        os.close(fd)


def _write_all(fd: int, data: bytes, offset: int) -> None:
    while data:
        written = os.pwrite(fd, data, offset)
        data, offset = data[written:], offset + written

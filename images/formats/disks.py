"""Disk images as something to read at any offset."""

from __future__ import annotations

import abc
import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

from images.files import data_ranges
from nexus_site.core.errors import Invalid, NotFound


class Disk(abc.ABC):
    """A disk of ``size`` bytes. Close it, or use it as a context manager."""

    size: int

    def read_at(self, offset: int, length: int) -> bytes:
        """Exactly ``length`` bytes at ``offset``; ``Invalid`` where that is not on the disk."""
        if offset < 0 or length < 0 or offset + length > self.size:
            raise Invalid(
                f"The disk image refers to byte {offset + length} but ends at {self.size}.",
                hint="The file is damaged or incomplete: fetch it again.",
                code="image-damaged",
            )
        return self._read(offset, length)

    @abc.abstractmethod
    def _read(self, offset: int, length: int) -> bytes:
        """``read_at`` with the bounds already checked."""

    def extents(self) -> Iterator[tuple[int, int]]:
        """Where there may be data: (start, end) pairs in order; all else is zeros."""
        yield 0, self.size

    @abc.abstractmethod
    def close(self) -> None:
        """Give the file back."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RawDisk(Disk):
    """A file whose bytes are the disk's bytes."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self.size = os.fstat(self._fd).st_size

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        while length:
            part = os.pread(self._fd, length, offset)
            if not part:
                raise Invalid("The disk image became shorter while it was read.")
            parts.append(part)
            offset, length = offset + len(part), length - len(part)
        return b"".join(parts)

    def extents(self) -> Iterator[tuple[int, int]]:
        return data_ranges(self._fd, self.size)

    def close(self) -> None:
        os.close(self._fd)


def open_disk(path: Path) -> Disk:
    """The disk in a file, whatever its format: qcow2 where it says so, else raw."""
    from images.formats.qcow2 import MAGIC, Qcow2Disk

    if not path.is_file():
        raise NotFound(f"There is no disk image {path.name}.")
    raw = RawDisk(path)
    try:
        if raw.size >= len(MAGIC) and raw.read_at(0, len(MAGIC)) == MAGIC:
            return Qcow2Disk(raw)
    except BaseException:
        raw.close()
        raise
    return raw

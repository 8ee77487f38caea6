"""The memory of guests as files.

A launched guest's memory is a memfd: it costs what other memory does, can be saved by copying
what has been written of it, and is never on a disk. A restored guest's is a private mapping of the
saved file: all guests restored from it share what none of them changes.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

NAME = "nexus-memory"
BLOCK = 64 * 1024
ZEROS = bytes(BLOCK)


@contextmanager
def new_memory(mem_size_mib: int) -> Iterator[str]:
    """Memory without anything in it; QEMU opens it by this path during the block, and keeps it.

    An inherited descriptor would do as well, but nobody between us and QEMU need know of it;
    `memory-backend-memfd` would not: since QEMU 8.1 only named files are left out of the state.
    """
    memory = os.memfd_create(NAME)
    try:
        os.truncate(memory, mem_size_mib * 2**20)
        yield f"/proc/{os.getpid()}/fd/{memory}"
    finally:
        os.close(memory)


def memory_of(pid: int) -> Path | None:
    """The memfd that is the memory of this QEMU's guest; None where a private mapping is."""
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed since
            if str(descriptor.readlink()).startswith(f"/memfd:{NAME} "):
                return descriptor
    return None


def copy(source: Path, target: Path) -> int:
    """Copy what is not zero into a new, sparse file of the same size; the checksum of it."""
    with source.open("rb") as reader, target.open("xb") as writer:
        os.fchmod(writer.fileno(), 0o600)
        writer.truncate(os.fstat(reader.fileno()).st_size)
        checksum = 0
        for offset, block in blocks(reader.fileno()):
            os.pwrite(writer.fileno(), block, offset)
            checksum = _add(checksum, offset, block)
        return checksum


def checksum(path: Path) -> int:
    """A CRC-32 over all that is not zero and where it lies; holes cost nothing."""
    with path.open("rb") as reader:
        result = 0
        for offset, block in blocks(reader.fileno()):
            result = _add(result, offset, block)
        return result


def blocks(fd: int) -> Iterator[tuple[int, bytes]]:
    """The blocks of a file that are not zero, each with its offset."""
    size, offset = os.fstat(fd).st_size, 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole from here on
            return
        end = os.lseek(fd, start, os.SEEK_HOLE)
        for offset in range(start - start % BLOCK, end, BLOCK):
            block = os.pread(fd, BLOCK, offset)
            if block != ZEROS[: len(block)]:
                yield offset, block
        offset += BLOCK


def _add(checksum: int, offset: int, block: bytes) -> int:
    return zlib.crc32(block, zlib.crc32(offset.to_bytes(8, "little"), checksum))

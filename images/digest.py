"""The digest of a sparse image: cheap for what is not there, the same for the same bytes."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from images.files import data_ranges

BLOCK = 4096
_ZEROS = bytes(BLOCK)
_CHUNK = 1 << 20


def content_digest(path: Path) -> str:
    """SHA-256 (hex) over the non-zero 4 KiB blocks, each with its number before it, and the size.

    Two files with equal bytes have equal digests however sparse each is.
    """
    digest = hashlib.sha256(b"nexus-image-1")
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        digest.update(size.to_bytes(8, "big"))
        for start, end in _whole_blocks(file.fileno(), size):
            file.seek(start)
            for offset in range(start, end, _CHUNK):
                chunk = file.read(min(_CHUNK, end - offset))
                for at in range(0, len(chunk), BLOCK):
                    block = chunk[at : at + BLOCK]
                    if block != _ZEROS[: len(block)]:
                        digest.update(((offset + at) // BLOCK).to_bytes(8, "big"))
                        digest.update(block)
    return digest.hexdigest()


def _whole_blocks(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the file has data, widened to whole blocks; ranges never share a block."""
    done = 0
    for start, end in data_ranges(fd, size):
        start = max(start - start % BLOCK, done)
        done = min(-(-end // BLOCK) * BLOCK, size)
        yield start, done

"""Sparse copies: straight to the disk, or through the kernel's memory where that cannot be."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drives.storage.copy import CopyStorage
from images.files import sha256_of
from nexus_site.core.errors import Conflict

MIB = 1 << 20


@pytest.fixture
def storage(tmp_path: Path) -> CopyStorage:
    return CopyStorage(tmp_path)


def put_image(storage: CopyStorage, size: int = 64 * MIB) -> Path:
    """Data at the beginning, at odd places in between, and at the end."""
    path = storage.image_path("image")
    with path.open("wb") as file:
        for place in (0, 5 * MIB + 1000, 40 * MIB, size - 100):
            file.seek(place)
            file.write(os.urandom(100))
    return path


def without_direct(real: Callable[..., int]) -> Callable[..., int]:
    def open(path: Any, flags: int, *arguments: Any, **options: Any) -> int:
        if flags & os.O_DIRECT:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        return real(path, flags, *arguments, **options)

    return open


@pytest.mark.parametrize("size", [64 * MIB, 64 * MIB + 1, 64 * MIB + 512])
@pytest.mark.parametrize("direct", [True, False])
def test_copies_are_equal_and_sparse(
    storage: CopyStorage, monkeypatch: pytest.MonkeyPatch, size: int, direct: bool
) -> None:
    if not direct:
        monkeypatch.setattr(os, "open", without_direct(os.open))
    image = put_image(storage, size)
    told: list[tuple[int, int]] = []
    copy = storage.clone_image("image", "copy", lambda *progress: told.append(progress))
    assert sha256_of(copy) == sha256_of(image)
    assert storage.usage(copy).used_bytes < MIB
    assert told[-1] == (size, size)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


def test_what_is_only_in_memory_is_copied(storage: CopyStorage) -> None:
    image = put_image(storage)
    with image.open("r+b", buffering=0) as file:
        file.write(b"just written")
        copy = storage.clone_image("image", "copy")
    assert copy.read_bytes()[:12] == b"just written"


def test_nothing_but_holes_and_nothing_at_all(storage: CopyStorage) -> None:
    for size in (0, 8 * MIB):
        with storage.image_path("image").open("wb") as file:
            file.truncate(size)
        copy = storage.clone_image("image", "copy")
        assert (copy.stat().st_size, copy.stat().st_blocks) == (size, 0)


def test_a_source_that_becomes_shorter_is_refused(
    storage: CopyStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel meets the missing pages; this process is not ended by them."""
    image = storage.image_path("image")
    image.write_bytes(os.urandom(20 * MIB))
    write, written = os.pwrite, []

    def cut(fd: int, data: Any, offset: int) -> int:
        written.append(write(fd, data, offset))
        os.truncate(image, 4 * MIB)
        return written[-1]

    monkeypatch.setattr(os, "pwrite", cut)
    with pytest.raises(Conflict, match="changed its size"):
        storage.clone_image("image", "copy")
    assert written, "it began straight"
    assert storage.inventory().drives == frozenset()
    assert storage.inventory().leftovers == ()

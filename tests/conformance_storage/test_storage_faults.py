"""What every storage backend leaves behind when the disk is full or its process is killed."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from drives.storage import Storage
from images.files import copy_sparse, sha256_of
from nexus_site.core.errors import Retryable
from tests.conformance_storage.conftest import IMAGE
from tests.forked import start_forked
from tests.tiny_disk import can_mount, tiny_disk

DRIVE, OTHER, SNAPSHOT = "baaaaaaaaaaac", "caaaaaaaaaaac", "daaaaaaaaaaac"
KEPT = "eaaaaaaaaaaac"  # a snapshot
MIB = 1 << 20

CALLS: dict[str, Callable[[Storage], object]] = {
    "clone_image": lambda storage: storage.clone_image(IMAGE, OTHER),
    "clone_drive": lambda storage: storage.clone_drive(DRIVE, OTHER),
    "snapshot": lambda storage: storage.snapshot(DRIVE, SNAPSHOT),
    "rollback": lambda storage: storage.rollback(DRIVE, KEPT),
    "resize": lambda storage: storage.resize(DRIVE, 48 * MIB),
}


def contents(storage: Storage) -> dict[str, str]:
    """Every file in the storage, by its path there, with its digest."""
    top = storage.images_dir.parent
    paths = [path for path in top.rglob("*") if path.is_file()]
    return {str(path.relative_to(top)): sha256_of(path) for path in paths}


def prepare(storage: Storage, packed_image: Path) -> None:
    """An image, a drive that differs from it and a snapshot that differs from both."""
    copy = storage.images_dir.parent / "result"
    copy.touch()
    copy_sparse(packed_image, copy)
    storage.import_image(copy, IMAGE)
    drive = storage.clone_image(IMAGE, DRIVE)
    storage.snapshot(DRIVE, KEPT)
    with drive.open("r+b") as file:
        file.write(b"boot sector")


class FullDisk:
    """Copying that fails after a part, as on a full disk."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.copied = 0
        self._copy = os.copy_file_range
        monkeypatch.setattr(os, "copy_file_range", self.copy_file_range)

    def copy_file_range(self, source: int, target: int, count: int, *offsets: int) -> int:
        if self.copied:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.copied = self._copy(source, target, min(count, 4096), *offsets)
        return self.copied


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_full_disk_changes_nothing_and_the_next_try_works(
    storage: Storage,
    packed_image: Path,
    monkeypatch: pytest.MonkeyPatch,
    call: Callable[[Storage], object],
) -> None:
    prepare(storage, packed_image)
    before = contents(storage)
    with monkeypatch.context() as patch:
        disk = FullDisk(patch)
        with pytest.raises(Retryable) as raised:
            call(storage)
        assert disk.copied
    assert raised.value.code == "disk-full"
    assert contents(storage) == before
    call(storage)
    assert contents(storage) != before


def test_a_disk_that_fills_up_keeps_what_it_has(
    backend: type[Storage], packed_image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a disk that is really small, where one may be mounted."""
    (tmp_path / "disk").mkdir()
    with contextlib.ExitStack() as stack:
        if can_mount():
            stack.enter_context(tiny_disk(tmp_path / "disk", 24))
        storage = backend(tmp_path / "disk")
        prepare(storage, packed_image)
        storage.clone_image(IMAGE, "clone-0")
        before = contents(storage)
        if not can_mount():
            FullDisk(monkeypatch)
        last = clone_until_full(storage)
        monkeypatch.undo()
        image = before[f"images/{IMAGE}.ext4"]
        clones = {f"drives/clone-{number}.img": image for number in range(last + 1)}
        assert contents(storage) == before | clones
        storage.delete("clone-0")
        storage.clone_image(IMAGE, "clone-again")
        assert contents(storage)["drives/clone-again.img"] == image


def clone_until_full(storage: Storage) -> int:
    """Clone the image until the disk is full; the number of the last clone that worked."""
    for number in range(1, 100):
        try:
            storage.clone_image(IMAGE, f"clone-{number}")
        except Retryable:
            return number - 1
    raise AssertionError("the disk never became full")


def work_until_killed(
    storage: Storage, call: Callable[[Storage], object], halfway: Connection
) -> None:
    """Run a call that stops for ever after it has copied a part."""
    copy = os.copy_file_range

    def stop(source: int, target: int, count: int, *offsets: int) -> int:
        copied = copy(source, target, min(count, 4096), *offsets)
        halfway.send("half done")
        signal.pause()
        return copied

    os.copy_file_range = stop  # type: ignore[assignment]
    call(storage)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_killed_process_leaves_only_what_is_swept(
    storage: Storage, packed_image: Path, call: Callable[[Storage], object]
) -> None:
    prepare(storage, packed_image)
    before = contents(storage)
    worker, halfway = start_forked(work_until_killed, storage, call)
    assert halfway.recv() == "half done"
    assert storage.sweep() == [], "it is still written"
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    left = contents(storage)
    assert {name: digest for name, digest in left.items() if name in before} == before
    swept = {str(path.relative_to(storage.images_dir.parent)) for path in storage.sweep()}
    assert swept == left.keys() - before
    assert len(swept) == 1
    assert contents(storage) == before
    call(storage)
    assert contents(storage) != before

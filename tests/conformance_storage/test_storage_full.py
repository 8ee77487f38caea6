"""What every storage backend does on a disk that is really full."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench.disks import loop_disk, used_bytes
from drives.storage import Storage
from nexus_site.core.errors import Retryable
from tests.conformance_storage.conftest import FILE_SYSTEMS, IMAGE, MIB
from tests.conformance_storage.test_storage_faults import CALLS, Call, contents, prepare, refusal_of
from tests.tiny_disk import can_mount

pytestmark = pytest.mark.skipif(not can_mount(), reason="only root can mount a small disk")


@pytest.fixture(scope="module")
def small_disk(backend: type[Storage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """As small as its file system can be."""
    directory = tmp_path_factory.mktemp("small")
    with loop_disk(directory, FILE_SYSTEMS.get(backend.name, "ext4")) as disk:
        yield disk


@contextlib.contextmanager
def filled(disk: Path) -> Iterator[None]:
    """No block of the disk is free inside, neither for data nor for names."""
    filler = disk / "filler"
    filler.mkdir()
    with (filler / "large").open("wb") as large:
        for step in (16 * MIB, MIB, 64 << 10, 4 << 10):
            with contextlib.suppress(OSError):
                while True:
                    os.posix_fallocate(large.fileno(), os.fstat(large.fileno()).st_size, step)
    with contextlib.suppress(OSError):
        for number in range(100_000):
            (filler / f"small-{number}").write_bytes(bytes(1500))
    try:
        with pytest.raises(OSError, match="No space left"):
            (disk / "proof").write_bytes(bytes(MIB))
        (disk / "proof").unlink(missing_ok=True)
        yield
    finally:
        for file in filler.iterdir():
            file.unlink()
        filler.rmdir()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_on_a_full_disk_a_call_is_refused_or_works(
    backend: type[Storage], small_disk: Path, packed_image: Path, call: Call
) -> None:
    storage = backend(small_disk)
    before = prepare(storage, packed_image)
    with filled(small_disk):
        refusal = refusal_of(storage, call)
        left = contents(storage)
        assert storage.inventory().leftovers == ()
    if refusal is not None:
        assert refusal.code == "disk-full"
        assert left == before or call.may_be_missing
        call.run(storage)
        left = contents(storage)
    assert left == call.outcome(before)
    empty(storage, small_disk)


def empty(storage: Storage, disk: Path) -> None:
    for drive in storage.inventory().drives:
        storage.delete(drive)
    for snapshot in storage.inventory().snapshots:
        storage.delete_snapshot(snapshot)
    used_bytes(disk)


def test_drives_fill_a_disk_up_and_lose_nothing(
    backend: type[Storage], small_disk: Path, packed_image: Path
) -> None:
    """Each clone gets data of its own until there is no room for more."""
    storage = backend(small_disk)
    prepare(storage, packed_image)
    kept = contents(storage)
    number = 0
    with pytest.raises(Retryable) as refusal:
        for number in range(1000):
            with storage.receive(f"own-{number}") as path:
                path.write_bytes(os.urandom(4 * MIB))
            storage.snapshot(f"own-{number}", f"of-{number}")
    assert refusal.value.code == "disk-full"
    assert number > 0
    drives = storage.inventory().drives
    assert {f"own-{made}" for made in range(number)} <= drives
    assert {name: content for name, content in contents(storage).items() if name in kept} == kept
    storage.delete("own-0")
    storage.delete_snapshot("of-0")
    used_bytes(small_disk)
    storage.clone_image(IMAGE, "again")
    assert contents(storage)["again"] == kept[IMAGE]
    empty(storage, small_disk)

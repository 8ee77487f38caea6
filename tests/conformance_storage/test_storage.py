"""What every storage backend promises."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from drives.storage import Storage
from images.files import sha256_of
from images.formats.disks import RawDisk
from images.formats.e2fsprogs import check
from images.formats.ext4_reader import Ext4
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound

DRIVE, OTHER, SNAPSHOT = "baaaaaaaaaaac", "caaaaaaaaaaac", "daaaaaaaaaaac"
MIB = 1 << 20


def scribble(path: Path, text: bytes, offset: int = 12 * MIB) -> None:
    """Write into a drive as a VM would."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(text)


def files_of(storage: Storage) -> set[Path]:
    directories = (storage.images_dir, storage.drives_dir, storage.snapshots_dir)
    return {path for directory in directories for path in directory.iterdir() if path.is_file()}


def test_importing_takes_the_file_over(
    storage: Storage, packed_image: Path, tmp_path: Path
) -> None:
    source = tmp_path / "result"
    source.write_bytes(packed_image.read_bytes())
    path = storage.import_image(source, DRIVE)
    assert path == storage.image_path(DRIVE)
    assert sha256_of(path) == sha256_of(packed_image)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    assert not source.exists()
    assert storage.import_image(source, DRIVE) == path
    with pytest.raises(NotFound):
        storage.import_image(source, OTHER)


def test_a_clone_is_its_image(storage: Storage, image: str) -> None:
    told: list[tuple[int, int]] = []
    path = storage.clone_image(image, DRIVE, lambda *progress: told.append(progress))
    assert path == storage.drive_path(DRIVE)
    assert sha256_of(path) == sha256_of(storage.image_path(image))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert told[-1] == (24 * MIB, 24 * MIB)


def test_clones_and_their_sources_do_not_change_each_other(storage: Storage, image: str) -> None:
    original = sha256_of(storage.image_path(image))
    first = storage.clone_image(image, DRIVE)
    scribble(first, b"first")
    second = storage.clone_drive(DRIVE, OTHER)
    common = sha256_of(first)
    assert sha256_of(second) == common
    scribble(second, b"second")
    assert sha256_of(first) == common
    changed = sha256_of(second)
    scribble(first, b"again")
    assert sha256_of(second) == changed
    assert sha256_of(storage.image_path(image)) == original


def test_cloning_again_starts_over(storage: Storage, image: str) -> None:
    scribble(storage.clone_image(image, DRIVE), b"forgotten")
    storage.clone_image(image, DRIVE)
    assert sha256_of(storage.drive_path(DRIVE)) == sha256_of(storage.image_path(image))


def test_a_snapshot_keeps_what_was_there(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    scribble(drive, b"before")
    kept = sha256_of(drive)
    path = storage.snapshot(DRIVE, SNAPSHOT)
    assert path == storage.snapshot_path(SNAPSHOT)
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    scribble(drive, b"after")
    storage.delete(DRIVE)
    assert sha256_of(path) == kept
    assert sha256_of(storage.clone_snapshot(SNAPSHOT, OTHER)) == kept
    scribble(storage.drive_path(OTHER), b"other")
    assert sha256_of(path) == kept


def test_rollback_is_exact_in_content_and_size(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    scribble(drive, b"before")
    kept = sha256_of(drive)
    storage.snapshot(DRIVE, SNAPSHOT)
    storage.resize(DRIVE, 48 * MIB)
    scribble(drive, b"after", offset=45 * MIB)
    storage.rollback(DRIVE, SNAPSHOT)
    assert sha256_of(drive) == kept
    scribble(drive, b"writable again")
    assert sha256_of(storage.snapshot_path(SNAPSHOT)) == kept


def test_resizing_grows_the_file_system_with_the_drive(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    storage.resize(DRIVE, 256 * MIB)
    assert drive.stat().st_size == 256 * MIB
    check(drive)
    with RawDisk(drive) as disk:
        file_system = Ext4(disk)
        names = [path for path, _ in file_system.walk()]
        assert file_system.size_bytes == 256 * MIB
    assert names == ["", "data"]
    assert storage.usage(drive).used_bytes < 32 * MIB


def test_resizing_to_the_same_size_changes_nothing(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    before = drive.stat().st_ino
    storage.resize(DRIVE, 24 * MIB)
    assert drive.stat().st_ino == before


@pytest.mark.parametrize("size", [0, -1, 24 * MIB - 1, 1 << 60])
def test_drives_do_not_shrink_and_sizes_are_sane(storage: Storage, image: str, size: int) -> None:
    drive = storage.clone_image(image, DRIVE)
    before = sha256_of(drive)
    with pytest.raises(Invalid):
        storage.resize(DRIVE, size)
    assert sha256_of(drive) == before


def test_a_drive_whose_file_system_cannot_be_grown_is_left_alone(
    storage: Storage, image: str
) -> None:
    drive = storage.clone_image(image, DRIVE)
    scribble(drive, b"\xff" * 64, offset=1024 + 0x60)
    before, files = sha256_of(drive), files_of(storage)
    with pytest.raises(Broken) as broken:
        storage.resize(DRIVE, 48 * MIB)
    assert broken.value.code == "file-system-damaged"
    assert "e2fsck" in broken.value.hint
    assert (sha256_of(drive), files_of(storage)) == (before, files)


def test_an_empty_drive_is_zeros_that_cost_nothing(storage: Storage) -> None:
    path = storage.create(DRIVE, 100 * MIB)
    assert storage.usage(path).size_bytes == 100 * MIB
    assert storage.usage(path).used_bytes == 0
    storage.resize(DRIVE, 200 * MIB)
    assert (path.stat().st_size, path.stat().st_blocks) == (200 * MIB, 0)
    with pytest.raises(Conflict):
        storage.create(DRIVE, 100 * MIB)
    with pytest.raises(Invalid):
        storage.create(OTHER, 0)


def test_deleting_gives_the_space_back_and_can_be_repeated(storage: Storage, image: str) -> None:
    storage.clone_image(image, DRIVE)
    storage.snapshot(DRIVE, SNAPSHOT)
    for delete, name, path in (
        (storage.delete, DRIVE, storage.drive_path(DRIVE)),
        (storage.delete_snapshot, SNAPSHOT, storage.snapshot_path(SNAPSHOT)),
        (storage.delete_image, image, storage.image_path(image)),
    ):
        assert path.exists()
        delete(name)
        delete(name)
        assert not path.exists()
        with pytest.raises(NotFound):
            storage.usage(path)
    assert files_of(storage) == set()


def test_usage_counts_data_and_not_holes(storage: Storage, image: str) -> None:
    usage = storage.usage(storage.clone_image(image, DRIVE))
    assert usage.size_bytes == 24 * MIB
    assert 3 * MIB <= usage.used_bytes < 12 * MIB
    capacity = storage.capacity()
    assert 0 < capacity.free_bytes < capacity.total_bytes


@pytest.mark.parametrize(
    "call",
    [
        lambda storage: storage.clone_image(OTHER, DRIVE),
        lambda storage: storage.clone_drive(OTHER, DRIVE),
        lambda storage: storage.clone_snapshot(OTHER, DRIVE),
        lambda storage: storage.snapshot(OTHER, SNAPSHOT),
        lambda storage: storage.rollback(OTHER, SNAPSHOT),
        lambda storage: storage.resize(OTHER, 1 << 30),
        lambda storage: storage.import_image(Path("/nowhere"), OTHER),
    ],
)
def test_what_is_missing_is_not_found(storage: Storage, call: Callable[[Storage], object]) -> None:
    with pytest.raises(NotFound):
        call(storage)
    assert files_of(storage) == set()


def test_a_rollback_never_makes_a_drive(storage: Storage, image: str) -> None:
    storage.clone_image(image, DRIVE)
    storage.snapshot(DRIVE, SNAPSHOT)
    with pytest.raises(NotFound):
        storage.rollback(OTHER, SNAPSHOT)
    assert not storage.drive_path(OTHER).exists()


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/etc", "A", "a b", "a\n", "-x"])
def test_ids_cannot_be_paths(storage: Storage, image: str, name: str) -> None:
    for call in (
        lambda: storage.clone_image(name, DRIVE),
        lambda: storage.clone_image(image, name),
        lambda: storage.snapshot(name, SNAPSHOT),
        lambda: storage.delete(name),
        lambda: storage.delete_image(name),
        lambda: storage.create(name, MIB),
    ):
        with pytest.raises(Invalid):
            call()


def test_others_cannot_look_into_the_storage(storage: Storage) -> None:
    for directory in (storage.images_dir, storage.drives_dir, storage.snapshots_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.stat().st_uid == os.geteuid()

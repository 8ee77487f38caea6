"""What every storage backend promises."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from drives.storage import Inventory, Storage
from images.files import sha256_of
from images.formats.disks import RawDisk
from images.formats.e2fsprogs import check
from images.formats.ext4_reader import Ext4
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound
from tests.conformance_storage.conftest import MIB, SIZE, scribble, spent

DRIVE, OTHER, SNAPSHOT = "baaaaaaaaaaac", "caaaaaaaaaaac", "daaaaaaaaaaac"


def inventory(*drives: str, snapshots: tuple[str, ...] = ()) -> Inventory:
    return Inventory(frozenset(drives), frozenset(snapshots), ())


def test_a_clone_is_its_image(storage: Storage, image: str) -> None:
    told: list[tuple[int, int]] = []
    path = storage.clone_image(image, DRIVE, lambda *progress: told.append(progress))
    assert path == storage.drive_path(DRIVE)
    assert sha256_of(path) == sha256_of(storage.image_path(image))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert told[-1] == (SIZE, SIZE)
    assert storage.inventory() == inventory(DRIVE)


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
    assert sha256_of(storage.clone_image(image, "third")) == original


def test_a_clone_outlives_its_source(storage: Storage, image: str) -> None:
    storage.clone_image(image, DRIVE)
    kept = sha256_of(storage.clone_drive(DRIVE, OTHER))
    storage.delete(DRIVE)
    storage.image_path(image).unlink()
    storage.sweep()
    assert sha256_of(storage.drive_path(OTHER)) == kept


def test_a_drive_is_no_clone_of_itself(storage: Storage, image: str) -> None:
    storage.clone_image(image, DRIVE)
    with pytest.raises(Conflict):
        storage.clone_drive(DRIVE, DRIVE)


def test_cloning_again_starts_over(storage: Storage, image: str) -> None:
    scribble(storage.clone_image(image, DRIVE), b"forgotten")
    storage.clone_image(image, DRIVE)
    assert sha256_of(storage.drive_path(DRIVE)) == sha256_of(storage.image_path(image))
    scribble(storage.drive_path(DRIVE), b"kept")
    storage.clone_drive(DRIVE, OTHER)
    scribble(storage.drive_path(DRIVE), b"more")
    storage.clone_drive(DRIVE, OTHER)
    assert sha256_of(storage.drive_path(DRIVE)) == sha256_of(storage.drive_path(OTHER))


def test_an_image_that_comes_back_changed_is_cloned_as_it_is_now(
    storage: Storage, image: str
) -> None:
    storage.clone_image(image, DRIVE)
    storage.image_path(image).chmod(0o600)
    scribble(storage.image_path(image), b"another image")
    storage.clone_image(image, OTHER)
    assert sha256_of(storage.drive_path(OTHER)) == sha256_of(storage.image_path(image))
    assert sha256_of(storage.drive_path(DRIVE)) != sha256_of(storage.drive_path(OTHER))


def test_a_snapshot_keeps_what_was_there(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    scribble(drive, b"before")
    kept = sha256_of(drive)
    path = storage.snapshot(DRIVE, SNAPSHOT)
    assert path == storage.snapshot_path(SNAPSHOT)
    scribble(drive, b"after")
    storage.delete(DRIVE)
    assert sha256_of(path) == kept
    assert sha256_of(storage.clone_snapshot(SNAPSHOT, OTHER)) == kept
    scribble(storage.drive_path(OTHER), b"other")
    assert sha256_of(path) == kept
    assert storage.inventory() == inventory(OTHER, snapshots=(SNAPSHOT,))


def test_what_a_vm_has_written_without_flushing_is_in_the_snapshot(
    storage: Storage, image: str
) -> None:
    with storage.clone_image(image, DRIVE).open("r+b", buffering=0) as vm:
        vm.write(b"not flushed")
        storage.snapshot(DRIVE, SNAPSHOT)
        assert storage.snapshot_path(SNAPSHOT).read_bytes()[:11] == b"not flushed"
        storage.clone_drive(DRIVE, OTHER)
        assert storage.drive_path(OTHER).read_bytes()[:11] == b"not flushed"


def test_a_snapshot_made_again_is_as_the_drive_is_then(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    storage.snapshot(DRIVE, SNAPSHOT)
    scribble(drive, b"later")
    storage.snapshot(DRIVE, SNAPSHOT)
    assert sha256_of(storage.snapshot_path(SNAPSHOT)) == sha256_of(drive)


def test_nobody_writes_to_a_snapshot(storage: Storage, image: str) -> None:
    """Where the file system can forbid it, not even root; else the file's mode says so."""
    storage.clone_image(image, DRIVE)
    path = storage.snapshot(DRIVE, SNAPSHOT)
    if storage.name != "btrfs":
        assert stat.S_IMODE(path.stat().st_mode) == 0o400
        return
    for attempt in (
        lambda: scribble(path, b"changed"),
        lambda: os.truncate(path, 0),
        path.unlink,
        lambda: path.chmod(0o666),
        lambda: path.with_name("more").touch(),
    ):
        with pytest.raises(OSError, match=os.strerror(errno.EROFS)):
            attempt()


def test_rollback_is_exact_in_content_and_size(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    scribble(drive, b"before")
    kept = sha256_of(drive)
    storage.snapshot(DRIVE, SNAPSHOT)
    storage.resize(DRIVE, 48 * MIB)
    scribble(drive, b"after", offset=45 * MIB)
    storage.rollback(DRIVE, SNAPSHOT)
    assert sha256_of(drive) == kept
    assert stat.S_IMODE(drive.stat().st_mode) == 0o600
    scribble(drive, b"writable again")
    assert sha256_of(storage.snapshot_path(SNAPSHOT)) == kept


def test_resizing_grows_the_file_system_with_the_drive(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    storage.snapshot(DRIVE, SNAPSHOT)
    kept = sha256_of(drive)
    storage.resize(DRIVE, 256 * MIB)
    assert drive.stat().st_size == 256 * MIB
    check(drive)
    with RawDisk(drive) as disk:
        file_system = Ext4(disk)
        names = [path for path, _ in file_system.walk()]
        assert file_system.size_bytes == 256 * MIB
    assert names == ["", "data"]
    assert storage.usage(drive).used_bytes < 32 * MIB
    assert sha256_of(storage.snapshot_path(SNAPSHOT)) == kept


def test_resizing_to_the_same_size_changes_nothing(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    before = drive.stat().st_ino
    storage.resize(DRIVE, SIZE)
    assert drive.stat().st_ino == before


@pytest.mark.parametrize("size", [0, -1, SIZE - 1, 1 << 60])
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
    before = sha256_of(drive)
    with pytest.raises(Broken) as broken:
        storage.resize(DRIVE, 48 * MIB)
    assert broken.value.code == "file-system-damaged"
    assert "e2fsck" in broken.value.hint
    assert sha256_of(drive) == before
    assert storage.inventory() == inventory(DRIVE)


@pytest.mark.parametrize("size_mib", [1, 3, 100, 10 << 10])
def test_a_new_drive_is_an_empty_file_system_that_costs_little(
    storage: Storage, size_mib: int
) -> None:
    path = storage.create(DRIVE, size_mib * MIB, label="data-of-a-long-name")
    check(path)
    assert storage.usage(path).size_bytes == size_mib * MIB
    assert storage.usage(path).used_bytes <= 8 * MIB
    with RawDisk(path) as disk:
        file_system = Ext4(disk)
        assert [name for name, _ in file_system.walk()] in ([""], ["", "lost+found"])
        assert file_system.size_bytes == size_mib * MIB
    storage.resize(DRIVE, 2 * size_mib * MIB)
    check(path)
    assert storage.inventory() == inventory(DRIVE)


def test_a_new_drive_replaces_none_and_has_a_size(storage: Storage) -> None:
    storage.create(DRIVE, 2 * MIB)
    before = sha256_of(storage.drive_path(DRIVE))
    with pytest.raises(Conflict):
        storage.create(DRIVE, 2 * MIB)
    assert sha256_of(storage.drive_path(DRIVE)) == before
    for size in (0, -1, MIB - 1, 1 << 60):
        with pytest.raises(Invalid):
            storage.create(OTHER, size)
    assert storage.inventory() == inventory(DRIVE)


def test_what_is_received_is_a_drive_when_it_is_whole(storage: Storage, image: str) -> None:
    with storage.receive(DRIVE) as path:
        assert path.read_bytes() == b""
        path.write_bytes(b"from elsewhere" * 1000)
        assert storage.inventory() == inventory(), "it is not whole yet, nor left over"
        assert storage.sweep() == []
    assert storage.drive_path(DRIVE).read_bytes() == b"from elsewhere" * 1000
    assert stat.S_IMODE(storage.drive_path(DRIVE).stat().st_mode) == 0o600
    with storage.receive(DRIVE) as path:
        path.write_bytes(b"again")
    assert storage.drive_path(DRIVE).read_bytes() == b"again"
    storage.clone_drive(DRIVE, OTHER)
    assert storage.drive_path(OTHER).read_bytes() == b"again"


@pytest.mark.parametrize("there", [False, True])
def test_what_is_not_received_whole_is_not_there(storage: Storage, there: bool) -> None:
    if there:
        storage.create(DRIVE, 2 * MIB)
    with pytest.raises(ZeroDivisionError), storage.receive(DRIVE) as path:
        path.write_bytes(b"half")
        raise ZeroDivisionError
    assert storage.inventory() == inventory(*[DRIVE] * there)
    if there:
        check(storage.drive_path(DRIVE))


def test_deleting_gives_the_space_back_and_can_be_repeated(
    storage: Storage, image: str, place: Path
) -> None:
    before = spent(storage, place)
    scribble(storage.clone_image(image, DRIVE), os.urandom(3 * MIB))
    storage.snapshot(DRIVE, SNAPSHOT)
    assert spent(storage, place) >= before + 3 * MIB
    for delete, name, path in (
        (storage.delete, DRIVE, storage.drive_path(DRIVE)),
        (storage.delete_snapshot, SNAPSHOT, storage.snapshot_path(SNAPSHOT)),
    ):
        assert path.exists()
        delete(name)
        delete(name)
        assert not path.exists()
        with pytest.raises(NotFound):
            storage.usage(path)
    assert storage.inventory() == inventory()
    assert spent(storage, place) < before + MIB


def test_usage_tells_what_a_drive_has_and_what_it_shares(storage: Storage, image: str) -> None:
    drive = storage.clone_image(image, DRIVE)
    usage = storage.usage(drive)
    assert usage.size_bytes == SIZE
    assert 256 << 10 <= usage.used_bytes < 4 * MIB
    assert usage.exclusive_bytes == (usage.used_bytes if storage.name == "copy" else 0)
    scribble(drive, os.urandom(MIB))
    os.sync()
    more = storage.usage(drive)
    assert more.used_bytes == usage.used_bytes + MIB
    assert more.exclusive_bytes == (usage.exclusive_bytes or 0) + MIB
    assert more.shared_bytes == usage.shared_bytes
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
    ],
)
def test_what_is_missing_is_not_found(storage: Storage, call: Callable[[Storage], object]) -> None:
    with pytest.raises(NotFound):
        call(storage)
    assert storage.inventory() == inventory()


def test_a_rollback_never_makes_a_drive(storage: Storage, image: str) -> None:
    storage.clone_image(image, DRIVE)
    storage.snapshot(DRIVE, SNAPSHOT)
    with pytest.raises(NotFound):
        storage.rollback(OTHER, SNAPSHOT)
    assert storage.inventory() == inventory(DRIVE, snapshots=(SNAPSHOT,))


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../x", "a/b", "/etc", "A", "a b", "a\n", "-x", "seeds", "snapshots"]
)
def test_ids_cannot_be_paths(storage: Storage, image: str, name: str) -> None:
    storage.clone_image(image, DRIVE)
    for call in (
        lambda: storage.clone_image(name, OTHER),
        lambda: storage.clone_image(image, name),
        lambda: storage.clone_drive(DRIVE, name),
        lambda: storage.snapshot(name, SNAPSHOT),
        lambda: storage.snapshot(DRIVE, name),
        lambda: storage.rollback(DRIVE, name),
        lambda: storage.delete(name),
        lambda: storage.delete_snapshot(name),
        lambda: storage.create(name, MIB),
    ):
        with pytest.raises(Invalid):
            call()
    with pytest.raises(Invalid), storage.receive(name):
        pass


def test_others_cannot_look_into_the_storage(storage: Storage) -> None:
    for directory in (storage.images_dir, storage.drives_dir, storage.snapshots_dir):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        assert directory.stat().st_uid == os.geteuid()


def test_what_nobody_knows_is_told_and_removed_only_by_name(storage: Storage, image: str) -> None:
    storage.clone_image(image, DRIVE)
    stray = storage.drives_dir / "notes.txt"
    stray.write_text("of somebody")
    folder = storage.snapshots_dir / "UNKNOWN"
    folder.mkdir()
    (folder / "file").touch()
    assert set(storage.inventory().leftovers) == {stray, folder}
    assert storage.sweep() == []
    for leftover in (stray, folder):
        storage.remove(leftover)
        storage.remove(leftover)
    with pytest.raises(Invalid):
        storage.remove(storage.drive_path(DRIVE))
    assert storage.inventory() == inventory(DRIVE)


def test_the_storage_describes_itself(storage: Storage, place: Path) -> None:
    found = storage.describe()
    assert (found.backend, found.directory) == (storage.name, storage.drives_dir)
    if place.is_mount():
        assert found.file_system == {"btrfs": "btrfs", "reflink": "xfs"}[storage.name]
    assert (found.pool, found.quota_groups, found.problems) == (None, False, ())

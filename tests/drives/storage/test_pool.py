"""A btrfs of Nexus's own in a file."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bench.disks import unmount, used_bytes
from drives.storage import create_pool, open_storage, pool
from drives.storage.base import Storage
from drives.storage.copy import CopyStorage
from images.files import sha256_of
from nexus_site.core.errors import Broken, Conflict, Denied, Invalid
from tests.tiny_disk import can_mount

MIB = 1 << 20
POOL = 256 * MIB

needs_mount = pytest.mark.skipif(not can_mount(), reason="only root can mount a pool")


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    """A data directory whose pool is unmounted at the end."""
    directory = tmp_path / "data with 'a' space"
    directory.mkdir()
    yield directory
    while (directory / "pool").is_mount():
        unmount(directory / "pool")


def put_image(storage: Storage, image_id: str = "image") -> Path:
    path = storage.image_path(image_id)
    with path.open("wb") as file:
        file.write(os.urandom(3 * MIB))
        file.truncate(24 * MIB)
    return path


def loop_devices_of(file: Path) -> list[str]:
    done = subprocess.run(["losetup", "-j", file], check=True, capture_output=True, text=True)
    return done.stdout.splitlines()


@needs_mount
def test_drives_are_in_the_pool_and_images_are_not(data_dir: Path) -> None:
    assert create_pool(data_dir, POOL) == data_dir / "pool"
    storage = open_storage(data_dir)
    assert (storage.name, storage.drives_dir) == ("btrfs", data_dir / "pool/drives")
    assert storage.describe().pool == data_dir / "pool.btrfs"
    assert storage.describe().file_system == "btrfs"
    assert (data_dir / "pool.btrfs").stat().st_blocks * 512 < 32 * MIB, "it is sparse"
    image = put_image(storage)
    assert image == data_dir / "images/image.ext4"
    drives = [storage.clone_image("image", f"drive-{number}") for number in range(10)]
    assert {sha256_of(drive) for drive in drives} == {sha256_of(image)}
    assert used_bytes(data_dir / "pool") < 16 * MIB, "one copy for all"
    assert storage.capacity().total_bytes == POOL


@needs_mount
def test_the_copy_of_an_image_goes_with_the_image(data_dir: Path) -> None:
    create_pool(data_dir, POOL)
    storage = open_storage(data_dir)
    put_image(storage).unlink()
    put_image(storage, "kept")
    for image in ("image", "kept"):
        put_image(storage, image)
        storage.clone_image(image, f"of-{image}")
    storage.image_path("image").unlink()
    seed = storage.drives_dir / "seeds/image"
    assert storage.inventory().leftovers == (seed,)
    assert storage.sweep() == [seed]
    assert storage.inventory().leftovers == ()
    assert storage.inventory().drives == {"of-image", "of-kept"}
    assert (storage.drives_dir / "seeds/kept").is_dir()


@needs_mount
def test_many_threads_can_make_the_first_drives_of_an_image(data_dir: Path) -> None:
    create_pool(data_dir, POOL)
    storage = open_storage(data_dir)
    image = put_image(storage)
    with ThreadPoolExecutor(8) as threads:
        names = [f"drive-{number}" for number in range(16)]
        paths = list(threads.map(lambda name: storage.clone_image("image", name), names))
    assert {sha256_of(path) for path in paths} == {sha256_of(image)}
    assert storage.inventory().leftovers == ()


@needs_mount
def test_the_pool_is_mounted_again_when_it_is_needed(data_dir: Path) -> None:
    create_pool(data_dir, POOL)
    kept = sha256_of(open_storage(data_dir).create("drive", 2 * MIB))
    unmount(data_dir / "pool")
    assert loop_devices_of(data_dir / "pool.btrfs") == []
    with ThreadPoolExecutor(4) as threads:
        found = list(threads.map(open_storage, [data_dir] * 4))
    assert {sha256_of(storage.drive_path("drive")) for storage in found} == {kept}
    unmount(data_dir / "pool")
    assert not (data_dir / "pool").is_mount(), "it was mounted once"


@needs_mount
def test_without_root_the_command_that_mounts_it_is_told(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_pool(data_dir, POOL)
    unmount(data_dir / "pool")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Broken) as broken:
        open_storage(data_dir)
    assert broken.value.code == "pool-not-mounted"
    command = broken.value.hint.partition("sudo ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert open_storage(data_dir).name == "btrfs"


@needs_mount
def test_without_root_the_command_that_makes_it_is_told(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(Denied) as denied:
        create_pool(data_dir, POOL)
    assert list(data_dir.iterdir()) == []
    command = denied.value.hint.partition("sudo ")[2]
    subprocess.run(["sh", "-c", command], check=True)
    assert (data_dir / "pool").stat().st_uid == 1000
    assert open_storage(data_dir).name == "btrfs"


@needs_mount
def test_quota_groups_count_where_somebody_turned_them_on(data_dir: Path) -> None:
    create_pool(data_dir, POOL)
    storage = open_storage(data_dir)
    put_image(storage)
    drive = storage.clone_image("image", "drive")
    with drive.open("r+b") as file:
        file.write(os.urandom(MIB))
    used_bytes(data_dir / "pool")
    assert not storage.describe().quota_groups
    by_extents = storage.usage(drive)
    subprocess.run(["btrfs", "quota", "enable", data_dir / "pool"], check=True)
    subprocess.run(["btrfs", "quota", "rescan", "-w", data_dir / "pool"], check=True)
    used_bytes(data_dir / "pool")
    assert storage.describe().quota_groups
    by_groups = storage.usage(drive)
    assert by_extents.exclusive_bytes == MIB
    assert by_groups.exclusive_bytes is not None
    assert MIB <= by_groups.exclusive_bytes <= MIB + (64 << 10), "with its metadata"
    assert (by_extents.size_bytes, by_extents.used_bytes) == (24 * MIB, by_groups.used_bytes)


def test_a_pool_has_a_sane_size(data_dir: Path) -> None:
    for size, code in ((POOL - 1, "pool-too-small"), (1 << 60, "pool-too-large")):
        with pytest.raises(Invalid) as invalid:
            create_pool(data_dir, size)
        assert invalid.value.code == code
    assert list(data_dir.iterdir()) == []


def test_a_pool_does_not_hide_drives(data_dir: Path) -> None:
    storage = CopyStorage(data_dir)
    storage.create("drive", MIB)
    with pytest.raises(Conflict) as conflict:
        create_pool(data_dir, POOL)
    assert conflict.value.code == "drives-exist"
    assert not (data_dir / "pool.btrfs").exists()


@needs_mount
def test_there_is_one_pool(data_dir: Path) -> None:
    create_pool(data_dir, POOL)
    with pytest.raises(Conflict):
        create_pool(data_dir, POOL)
    assert open_storage(data_dir).name == "btrfs"


def test_without_the_program_its_package_is_named(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pool, "search_path", lambda: "/nowhere")
    with pytest.raises(Broken) as broken:
        create_pool(data_dir, POOL)
    assert broken.value.code == "tool-missing"
    assert "btrfs-progs" in broken.value.hint
    assert list(data_dir.iterdir()) == []


@pytest.mark.parametrize("tool", ["mkfs.btrfs", "mount"])
def test_a_pool_that_cannot_be_made_leaves_nothing(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    """The host's kernel may have no btrfs, or no loop devices."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name in ("mkfs.btrfs", "mount"):
        says = "echo refused >&2; exit 32" if name == tool else "exit 0"
        (tools / name).write_text(f"#!/bin/sh\n{says}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(pool, "search_path", lambda: str(tools))
    with pytest.raises(Broken) as broken:
        create_pool(data_dir, POOL)
    assert broken.value.code == "pool-failed"
    assert broken.value.detail == "refused"
    assert list(data_dir.iterdir()) == []


def test_the_file_system_under_a_path_is_known(tmp_path: Path) -> None:
    assert pool.file_system_of(Path("/proc/self")) == "proc"
    assert pool.file_system_of(Path("/sys")) == "sysfs"
    assert pool.file_system_of(tmp_path) not in ("", "unknown", "proc")

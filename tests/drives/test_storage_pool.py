"""A pool of Nexus's own, where this user may make and mount one."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from drives import services
from images.formats.e2fsprogs import search_path
from images.models import Image
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.models import Event
from tests.drives.conftest import done, make, take
from tests.tiny_disk import can_mount

needs_btrfs = pytest.mark.skipif(
    not can_mount()
    or shutil.which("mkfs.btrfs", path=search_path()) is None
    or "btrfs" not in Path("/proc/filesystems").read_text(),
    reason="a btrfs can be made and mounted by root alone, where there is one",
)


@pytest.fixture
def unmounted(own_data_dir: Path) -> Iterator[Path]:
    """The data directory; its pool is unmounted at the end."""
    yield own_data_dir
    if (own_data_dir / "pool").is_mount():
        subprocess.run(["umount", "--lazy", str(own_data_dir / "pool")], check=True)


@needs_btrfs
def test_a_pool_takes_the_drives_from_then_on(image: Image, unmounted: Path) -> None:
    assert services.storage().describe().pool is None
    operation = done(services.init_pool(300))
    pool = unmounted / "pool"
    assert operation.result == {"pool": str(pool), "backend": "btrfs"}
    assert Event.objects.get(kind="storage.changed").data["pool"] == str(pool)
    assert services.storage().describe().pool == unmounted / "pool.btrfs"
    drive = make(image)
    take(drive)
    assert services.require_file(drive).is_relative_to(pool)
    assert services.check_storage().problems == []
    with pytest.raises(Conflict, match="There is a pool already"):
        services.init_pool(300)


def test_where_drives_are_there_is_no_new_pool(image: Image) -> None:
    make(image)
    with pytest.raises(Conflict, match="There are drives already") as refused:
        services.init_pool(300)
    assert refused.value.code == "drives-exist"


@pytest.mark.parametrize(("size_mib", "code"), [(1, "pool-too-small"), (1 << 40, "pool-too-large")])
def test_a_pool_of_a_size_that_cannot_be_leaves_nothing(
    size_mib: int, code: str, image: Image, own_data_dir: Path
) -> None:
    with pytest.raises(Invalid) as refused:
        services.init_pool(size_mib)
    assert refused.value.code == code
    assert not (own_data_dir / "pool.btrfs").exists()

"""Every backend goes through the same tests, on the file system that it is for."""

from __future__ import annotations

import contextlib
import itertools
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.disks import loop_disk, used_bytes
from drives.storage import BACKENDS, Storage
from images.files import copy_sparse
from tests.images.formats.ext4_images import make_ext4
from tests.tiny_disk import can_mount

IMAGE, FRESH = "aaaaaaaaaaaac", "aaaaaaaaaaaae"
MIB = 1 << 20
SIZE = 4 * MIB  # of the image
#: Where each backend lives; the plain file system of the tests is for copies.
FILE_SYSTEMS = {"btrfs": "btrfs", "reflink": "xfs"}

_numbers = itertools.count()


@pytest.fixture(scope="session", params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> type[Storage]:
    return request.param


@pytest.fixture(scope="session")
def place(backend: type[Storage], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory on the file system that the backend is for."""
    directory = tmp_path_factory.mktemp(backend.name)
    with contextlib.ExitStack() as stack:
        if kind := FILE_SYSTEMS.get(backend.name):
            if not can_mount():
                pytest.skip("only root can mount the disk for this backend")
            directory = stack.enter_context(loop_disk(directory, kind, 4096))
        yield directory


@pytest.fixture
def new_storage(backend: type[Storage], place: Path) -> Callable[[], Storage]:
    """Makes a storage of its own with every call."""

    def make() -> Storage:
        data_dir = place / f"data-{next(_numbers)}"
        data_dir.mkdir()
        assert backend.probe(data_dir).usable
        return backend(data_dir)

    return make


@pytest.fixture
def storage(new_storage: Callable[[], Storage]) -> Storage:
    return new_storage()


@pytest.fixture(scope="session")
def packed_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse ext4 image with 256 KiB of data."""
    base = tmp_path_factory.mktemp("image")
    (base / "source").mkdir()
    (base / "source" / "data").write_bytes(random.Random(5).randbytes(256 << 10))
    options = ("-b", "4096", "-O", "^has_journal", "-E", "assume_storage_prezeroed=1")
    return make_ext4(base / "image", base / "source", size_mib=SIZE // MIB, options=options)


def add_image(storage: Storage, packed_image: Path, image_id: str = IMAGE) -> str:
    """Put an image where the room of images keeps it."""
    path = storage.image_path(image_id)
    path.touch()
    copy_sparse(packed_image, path)
    path.chmod(0o400)
    return image_id


@pytest.fixture
def image(storage: Storage, packed_image: Path) -> str:
    """The ID of an image."""
    return add_image(storage, packed_image)


def scribble(path: Path, text: bytes, offset: int = SIZE // 2) -> None:
    """Write into a drive as a VM would."""
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(text)


def spent(storage: Storage, place: Path) -> int:
    """What the storage costs on its disk, once all that was deleted has been returned."""
    if place.is_mount():
        return used_bytes(place)
    top = storage.images_dir.parent
    return sum(os.lstat(path).st_blocks * 512 for path in top.rglob("*") if path.is_file())

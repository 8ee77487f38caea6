"""Every backend goes through the same tests, on images with a real file system."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from drives.storage import BACKENDS, Storage
from images.files import copy_sparse
from tests.images.formats.ext4_images import make_ext4

IMAGE = "aaaaaaaaaaaac"


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.name)
def backend(request: pytest.FixtureRequest) -> type[Storage]:
    return request.param


@pytest.fixture
def storage(backend: type[Storage], tmp_path: Path) -> Storage:
    assert backend.probe(tmp_path / "data").usable
    return backend(tmp_path / "data")


@pytest.fixture(scope="session")
def packed_image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sparse 24 MiB ext4 image with 3 MiB of data."""
    base = tmp_path_factory.mktemp("image")
    (base / "source").mkdir()
    (base / "source" / "data").write_bytes(random.Random(5).randbytes(3 << 20))
    options = ("-E", "assume_storage_prezeroed=1")
    return make_ext4(base / "image", base / "source", size_mib=24, options=options)


@pytest.fixture
def image(storage: Storage, packed_image: Path, tmp_path: Path) -> str:
    """The ID of an image that the storage has taken over."""
    copy = tmp_path / "build-result"
    copy.touch()
    copy_sparse(packed_image, copy)
    storage.import_image(copy, IMAGE)
    return IMAGE

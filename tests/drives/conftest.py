"""A data directory of its own, an image that is really there, and workers that are killed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from drives import services
from images import services as image_services
from images.models import Image
from nexus_site.core import operations
from nexus_site.core.models import Operation
from tests.factories import make_image
from tests.images.formats.ext4_images import make_ext4

MIB = 1 << 20
IMAGE_MIB = 8


@pytest.fixture
def own_data_dir(settings: Any, tmp_path: Path) -> Path:
    """Nothing in it is anybody else's."""
    directory = tmp_path / "data"
    directory.mkdir()
    settings.NEXUS = settings.NEXUS.model_copy(update={"data_dir": directory})
    return directory


@pytest.fixture
def image(db: None, own_data_dir: Path, nudges: list[str]) -> Image:
    """An image with its file: an ext4 file system with a line in it."""
    image = make_image(name="tiny", size_bytes=IMAGE_MIB * MIB)
    path = image_services.image_path(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    source = path.parent.parent / "source"
    source.mkdir()
    (source / "hello").write_text("from the image")
    make_ext4(path, source, size_mib=IMAGE_MIB)
    path.chmod(0o400)
    return image


class Killed(BaseException):
    """Ends a worker like a signal: nothing catches it, nothing is tidied up."""


def run(operation: Operation) -> Operation:
    """What a worker does with an operation, to its end."""
    operations.execute(operation.pk)
    operation.refresh_from_db()
    return operation


def done(operation: Operation) -> Operation:
    assert run(operation).state == "succeeded", operation.error
    return operation


def run_killed(
    operation: Operation, monkeypatch: pytest.MonkeyPatch, method: str, *, when: str
) -> None:
    """The worker is killed before or after a call of the storage; its lease runs out."""
    call: Callable[..., Any] = getattr(services.storage(), method)

    def killing(*arguments: Any, **more: Any) -> None:
        if when == "after":
            call(*arguments, **more)
        raise Killed

    with monkeypatch.context() as patched:
        patched.setattr(services.storage(), method, killing)
        with pytest.raises(Killed):
            operations.execute(operation.pk)
    Operation.objects.filter(pk=operation.pk).update(
        lease_until=timezone.now() - timedelta(seconds=1)
    )


def in_storage() -> tuple[set[str], set[str]]:
    """The IDs of the drives and of the snapshots that have files; nothing else is there."""
    found = services.storage().inventory()
    assert not found.leftovers
    return set(found.drives), set(found.snapshots)

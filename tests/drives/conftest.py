"""A data directory of its own, an image that is really there, and workers that are killed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.utils import timezone

from drives import services
from drives.models import Drive, Snapshot
from images import services as image_services
from images.models import Image
from nexus_site.core import operations
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Event, Operation
from tests.factories import make_image, make_vm
from tests.images.formats.ext4_images import debugfs, make_ext4
from vms.models import VM, Attachment, SnapshotPart, VMSnapshot

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


def make(image: Image | None = None, **wishes: object) -> Drive:
    operation = done(services.create_drive(image=image, **wishes))  # type: ignore[arg-type]
    return Drive.objects.get(pk=operation.subject_id)


def take(drive: Drive, name: str = "") -> Snapshot:
    operation = done(services.take_snapshot(drive, name=name))
    return Snapshot.objects.get(pk=NexusID.parse(operation.params["snapshot"]))


def write(drive: Drive, text: str) -> None:
    """What a guest would do: another content for the same file."""
    path = services.require_file(drive)
    source = path.parent.parent / "written"
    source.write_text(text)
    debugfs(path, "rm hello", f"write {source} hello")


def content(row: Drive | Snapshot) -> str:
    return debugfs(services.file_of(row), "cat hello").split("debugfs: cat hello\n")[-1]


def kinds(row: Drive | Snapshot) -> list[str]:
    """What the log says about it, oldest first."""
    return [event.kind for event in Event.objects.filter(subject_id=row.pk).order_by("seq")]


def attached(drive: Drive, **values: object) -> VM:
    vm = make_vm(root=False, **values)
    Attachment.objects.create(vm=vm, drive=drive)
    return vm


def part_of_vm(snapshot: Snapshot, name: str) -> VMSnapshot:
    vm = make_vm(root=False)
    whole = VMSnapshot.objects.create(name=name, vm=vm, vcpu_count=1, mem_size_mib=64)
    SnapshotPart.objects.create(vm_snapshot=whole, snapshot=snapshot, is_root=True)
    return whole

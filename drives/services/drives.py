"""The rules about drives: the only code that changes one."""

from __future__ import annotations

from pathlib import Path

from django.db import transaction

from drives.models import Drive
from drives.services.places import storage
from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, Invalid
from nexus_site.core.ids import NexusID, check_name, free_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

MIB = 1024 * 1024


@transaction.atomic
def create_drive(image: Image, *, name: str = "", size_mib: int | None = None) -> Operation:
    """A writable copy of ``image``; with ``size_mib``, grown to that size."""
    drive = new_drive(image, name=name, size_mib=size_mib, strict=True)
    return open_operation(
        "drive.create", f"Create drive {drive.name}", subject=drive, params={"drive": drive.ref}
    )


@transaction.atomic
def delete_drive(drive: Drive) -> Operation:
    """Delete a drive for good. Raises ``Conflict`` that names the VM it is attached to."""
    _require_detached(drive)
    if not Drive.objects.filter(pk=drive.pk, state=Drive.State.READY).update(
        state=Drive.State.DELETING
    ):
        raise Conflict(f"The drive “{drive.name}” is {drive.state}.", code="drive-busy")
    return open_operation(
        "drive.delete", f"Delete drive {drive.name}", subject=drive, params={"drive": drive.ref}
    )


def check_size(image: Image, size_mib: int) -> None:
    """Raises ``Invalid`` where a drive of ``image`` cannot be that small."""
    if size_mib * MIB < image.size_bytes:
        raise Invalid(
            f"A drive of “{image.name}” has at least {image.size_bytes // MIB} MiB; "
            f"{size_mib} were asked for.",
            hint="Leave the size out to get the image's.",
            code="drive-too-small",
        )


def new_drive(
    image: Image, *, name: str = "", size_mib: int | None = None, strict: bool = False
) -> Drive:
    """The row of a new drive; its storage is still to be made (``fill``).

    A taken name gets a suffix, or with ``strict`` raises ``Conflict``.
    """
    if size_mib is not None:
        check_size(image, size_mib)
    if name:
        check_name(name)
        if strict and Drive.objects.filter(name=name).exists():
            raise Conflict(
                f"There is a drive “{name}” already.",
                hint="Choose another name, or leave it out to get one.",
                code="name-taken",
            )
    drive = Drive.objects.create(
        name=free_name(lambda taken: Drive.objects.filter(name=taken).exists(), name),
        image=image,
        size_bytes=size_mib * MIB if size_mib else image.size_bytes,
    )
    events.append("drive.created", drive, image=image.name)
    return drive


def fill(drive: Drive, run: Run) -> str:
    """Make the drive's storage from its image and mark it ready; safe to repeat."""
    if drive.state != Drive.State.READY:
        assert drive.image is not None, "made from it"
        storage().clone_image(drive.image.ref, drive.ref)
        if drive.size_bytes > drive.image.size_bytes:
            storage().resize(drive.ref, drive.size_bytes)
        with transaction.atomic():
            Drive.objects.filter(pk=drive.pk).update(state=Drive.State.READY)
            drive.state = Drive.State.READY
            events.append("drive.ready", drive)
    return f"{drive.name}, {drive.size_bytes / 1024**3:.0f} GiB"


def require_file(drive: Drive) -> Path:
    """The drive's file, for a VMM. Raises ``Broken`` when it is missing."""
    path = storage().drive_path(drive.ref)
    if drive.state != Drive.State.READY:
        raise Conflict(f"The drive “{drive.name}” is {drive.state}.", code="drive-busy")
    if not path.exists():
        raise Broken(
            f"The file of the drive “{drive.name}” is missing.",
            hint="Restore it from a backup, or delete the drive.",
            code="drive-missing",
        )
    return path


def discard(drive: Drive) -> None:
    """Delete the drive's storage, then its row; safe to repeat."""
    _require_detached(drive)
    storage().delete(drive.ref)
    with transaction.atomic():
        events.append("drive.deleted", drive)
        Drive.objects.filter(pk=drive.pk).delete()


def _require_detached(drive: Drive) -> None:
    attachment = getattr(drive, "attachment", None)
    if attachment is not None:
        raise Conflict(
            f"The drive “{drive.name}” is attached to the VM “{attachment.vm.name}”.",
            hint=f"Detach it first: nexusctl drive detach {drive.name}",
            code="drive-attached",
        )


# What workers run


def create_plan(operation: Operation) -> Plan:
    return [Step("storage", "Copy the image", _create, undo=_drop)]


def delete_plan(operation: Operation) -> Plan:
    return [Step("storage", "Delete the storage", _delete)]


def _drive(run: Run) -> Drive | None:
    rows = Drive.objects.select_related("image")
    return rows.filter(pk=NexusID.parse(run.params["drive"])).first()


def _create(run: Run) -> str:
    drive = _drive(run)
    if drive is None:
        raise Conflict("The drive has been deleted meanwhile.", code="drive-gone")
    return fill(drive, run)


def _drop(run: Run) -> None:
    drive = _drive(run)
    if drive is not None:
        discard(drive)


def _delete(run: Run) -> str | None:
    drive = _drive(run)
    if drive is None:
        return "it is gone already"
    discard(drive)
    return None

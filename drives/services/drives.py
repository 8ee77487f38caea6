"""Drives that are there: renamed, grown, given back, deleted."""

from __future__ import annotations

from pathlib import Path

from django.db import transaction

from drives.live import live
from drives.models import Drive, Snapshot
from drives.services.guards import (
    require_detached,
    require_free,
    require_free_name,
    require_ready,
)
from drives.services.places import storage
from drives.services.rows import MIB, locked, progress_of, settle, size_text
from drives.services.snapshots import discard_snapshot, require_no_vm_snapshot
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

LARGEST_MIB = 16 * 1024 * 1024


@transaction.atomic
def rename_drive(drive: Drive, name: str) -> Drive:
    """Give a drive another name. Raises ``Invalid``, or ``Conflict`` for one that is taken."""
    require_free_name(Drive, name)
    before, drive.name = drive.name, name
    drive.save(update_fields=["name"])
    events.append("drive.renamed", drive, before=before)
    return drive


@transaction.atomic
def set_delete_with_vm(drive: Drive, value: bool) -> Drive:
    """Whether the drive goes when the VM goes that it is attached to."""
    drive.delete_with_vm = value
    drive.save(update_fields=["delete_with_vm"])
    events.append("drive.changed", drive, delete_with_vm=value)
    return drive


@transaction.atomic
def resize_drive(drive: Drive, size_mib: int) -> Operation:
    """Make a drive at rest larger, and the file system on it.

    Raises ``Invalid`` (``drive-too-small``) for less than it has, ``Conflict`` unless it is at
    rest and free.
    """
    drive = locked(drive)
    if size_mib * MIB < drive.size_bytes:
        raise Invalid(
            f"The drive “{drive.name}” has {size_text(drive)} and cannot shrink; "
            f"{size_mib} MiB were asked for.",
            hint="Drives only grow. Copy the files to a smaller one instead.",
            code="drive-too-small",
        )
    check_limit(size_mib)
    require_ready(drive)
    require_free(drive)
    live().require_rest(drive, "be resized")
    return open_operation(
        "drive.resize",
        f"Resize drive {drive.name}",
        subject=drive,
        params={"drive": drive.ref, "size_bytes": size_mib * MIB},
    )


@transaction.atomic
def delete_drive(drive: Drive, *, with_snapshots: bool = False) -> Operation:
    """Delete a drive for good.

    Raises ``Conflict`` that names the VM it is attached to, or that lists its snapshots unless
    they are to go ``with_snapshots``; those that are parts of VM snapshots always stay.
    """
    drive = locked(drive)
    require_detached(drive)
    snapshots = list(drive.snapshots.select_related("part__vm_snapshot"))
    require_no_vm_snapshot(snapshots)
    if not with_snapshots:
        _require_no_snapshots(drive, snapshots)
    require_free(drive)
    if not Drive.objects.filter(
        pk=drive.pk, state__in=[Drive.State.READY, Drive.State.MISSING]
    ).update(state=Drive.State.DELETING):
        raise Conflict(f"The drive “{drive.name}” is {drive.state}.", code="drive-busy")
    return open_operation(
        "drive.delete",
        f"Delete drive {drive.name}",
        subject=drive,
        params={"drive": drive.ref, "with_snapshots": with_snapshots},
    )


def discard(drive: Drive, *, with_snapshots: bool = False) -> None:
    """Delete the drive's storage, then its row; safe to repeat.

    Raises ``Conflict`` where it is attached, or has snapshots that are to stay.
    """
    require_detached(drive)
    snapshots = list(drive.snapshots.select_related("part__vm_snapshot"))
    require_no_vm_snapshot(snapshots)
    if not with_snapshots:
        _require_no_snapshots(drive, snapshots)
    for snapshot in snapshots:
        discard_snapshot(snapshot)
    storage().delete(drive.ref)
    with transaction.atomic():
        events.append("drive.deleted", drive)
        Drive.objects.filter(pk=drive.pk).delete()


def require_file(drive: Drive) -> Path:
    """The drive's file, for a VMM. Raises ``Broken`` when it is missing."""
    require_ready(drive)
    path = storage().drive_path(drive.ref)
    if not path.exists():
        raise Broken(
            f"The file of the drive “{drive.name}” is missing.",
            hint="Restore it from a backup, or delete the drive.",
            code="drive-missing",
        )
    return path


def mark_creating(drive: Drive) -> None:
    """The drive's storage is made anew: nobody can use it until it is ready."""
    Drive.objects.filter(pk=drive.pk).update(state=Drive.State.CREATING, pristine=False)
    drive.state, drive.pristine = Drive.State.CREATING, False


@transaction.atomic
def mark_ready(drive: Drive) -> None:
    """The drive's storage is whole: it can be used."""
    Drive.objects.filter(pk=drive.pk).update(state=Drive.State.READY, size_bytes=drive.size_bytes)
    drive.state = Drive.State.READY
    events.append("drive.ready", drive)


def check_limit(size_mib: int) -> None:
    """Raises ``Invalid`` for a size that no drive can have."""
    if not 1 <= size_mib <= LARGEST_MIB:
        raise Invalid(
            f"A drive has 1 MiB to {LARGEST_MIB >> 20} TiB; {size_mib} MiB were asked for.",
            code="drive-size",
        )


def find(run: Run) -> Drive | None:
    """The drive that an operation is about, unless it has been deleted."""
    rows = Drive.objects.select_related("image", "source_drive", "source_snapshot")
    return rows.filter(pk=NexusID.parse(run.params["drive"])).first()


def _require_no_snapshots(drive: Drive, snapshots: list[Snapshot]) -> None:
    if snapshots:
        names = [snapshot.name for snapshot in snapshots]
        raise Conflict(
            f"The drive “{drive.name}” has snapshots: {', '.join(names[:20])}.",
            hint=f"Delete them too: nexusctl drive delete {drive.name} --with-snapshots",
            code="drive-has-snapshots",
            extra={"snapshots": names},
        )


# What workers run


def resize_plan(operation: Operation) -> Plan:
    return [Step("grow", "Grow the drive", _grow, done=_has_grown)]


def delete_plan(operation: Operation) -> Plan:
    return [Step("storage", "Delete the storage", _delete)]


def _has_grown(run: Run) -> str | None:
    drive = _there(run)
    same = drive.size_bytes == run.params["size_bytes"]
    return f"it has {size_text(drive)} already" if same else None


def _grow(run: Run) -> str:
    drive = _there(run)
    live().require_rest(drive, "be resized")
    before = drive.size_bytes
    drive.size_bytes = run.params["size_bytes"]
    storage().resize(drive.ref, drive.size_bytes, progress_of(run))
    with transaction.atomic():
        drive.save(update_fields=["size_bytes"])
        events.append("drive.resized", drive, size_bytes=drive.size_bytes, before=before)
    return size_text(drive)


def _there(run: Run) -> Drive:
    drive = find(run)
    if drive is None:
        raise Conflict("The drive has been deleted meanwhile.", code="drive-gone")
    return drive


def _delete(run: Run) -> str | None:
    drive = find(run)
    if drive is None:
        return "it is gone already"
    discard(drive, with_snapshots=run.params["with_snapshots"])
    return None


def delete_failed(operation: Operation, error: NexusError) -> None:
    """What could not be deleted, or was not to be after all, can be used or deleted again."""
    drive = Drive.objects.filter(pk=NexusID.parse(operation.params["drive"])).first()
    if drive is not None and drive.state == Drive.State.DELETING:
        settle(drive)

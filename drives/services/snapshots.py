"""Snapshots: read-only points in time of drives, in a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from django.db import transaction

from drives.live import live
from drives.models import Consistency, Drive, Snapshot
from drives.services.guards import (
    require_free_name,
    require_idle,
    require_ready,
    require_unused,
)
from drives.services.places import storage
from drives.services.rows import locked, progress_of, settle
from images.files import Progress, no_progress
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.ids import NexusID, check_name, free_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


@transaction.atomic
def take_snapshot(drive: Drive, *, name: str = "") -> Operation:
    """Keep what a drive holds now. A VM that runs stands still meanwhile, frozen if it can be.

    Raises ``Conflict`` while something else works on the drive or its VM is starting or
    stopping, and for a name that is taken.
    """
    if name:
        require_free_name(Snapshot, name)
    snapshot = new_snapshot(drive, name=name)
    require_idle(drive)
    live().require_settled(drive)
    return open_operation(
        "drive.snapshot",
        f"Snapshot drive {drive.name}",
        subject=drive,
        params={"drive": drive.ref, "snapshot": snapshot.ref},
    )


@transaction.atomic
def new_snapshot(drive: Drive, *, name: str = "") -> Snapshot:
    """The row of a new snapshot; the copy is still to be made (``copy_snapshot``).

    A taken name gets a suffix. Raises ``Conflict`` or ``Broken`` unless the drive is ready.
    """
    drive = locked(drive)
    require_ready(drive)
    if name:
        check_name(name)
    snapshot = Snapshot.objects.create(
        name=free_name(lambda taken: Snapshot.objects.filter(name=taken).exists(), name),
        drive=drive,
        parent=drive.head,
        size_bytes=drive.size_bytes,
    )
    events.append("snapshot.created", snapshot, drive=drive.ref, drive_name=drive.name)
    return snapshot


def copy_snapshot(
    snapshot: Snapshot, consistency: Consistency, progress: Progress = no_progress
) -> None:
    """Make the copy and mark it ready; its drive goes on from it. Safe to repeat.

    The caller sees to it that nothing writes to the drive (``live().hold``).
    """
    copy_snapshots([snapshot], consistency, progress)


def copy_snapshots(
    snapshots: Sequence[Snapshot], consistency: Consistency, progress: Progress = no_progress
) -> None:
    """The same for snapshots of several drives at one instant: all are ready, or none is."""
    for snapshot in snapshots:
        storage().snapshot(snapshot.drive.ref, snapshot.ref, progress)
    with transaction.atomic():
        for snapshot in snapshots:
            _mark_ready(snapshot, consistency)


def _mark_ready(snapshot: Snapshot, consistency: Consistency) -> None:
    drive = locked(snapshot.drive)
    if drive.head_id != snapshot.pk:  # else this is a repetition
        snapshot.parent = drive.head
        drive.head = snapshot
        drive.save(update_fields=["head"])
    snapshot.state = Snapshot.State.READY
    snapshot.consistency = consistency
    snapshot.size_bytes = storage().snapshot_path(snapshot.ref).stat().st_size
    snapshot.save(update_fields=["parent", "state", "consistency", "size_bytes"])
    events.append(
        "snapshot.ready", snapshot, drive=drive.ref, drive_name=drive.name, consistency=consistency
    )


def restore(drive: Drive, snapshot: Snapshot) -> str:
    """Give a drive the contents and the size of its snapshot back; safe to repeat.

    The caller sees to it that nothing writes to the drive and that nothing else works on it.
    """
    require_own(drive, snapshot)
    require_ready(drive)
    require_ready(snapshot)
    storage().rollback(drive.ref, snapshot.ref)
    with transaction.atomic():
        drive.size_bytes, drive.head = snapshot.size_bytes, snapshot
        drive.save(update_fields=["size_bytes", "head"])
        events.append("drive.restored", drive, snapshot=snapshot.ref, snapshot_name=snapshot.name)
    return f"{drive.name} is as in {snapshot.name}"


def require_own(drive: Drive, snapshot: Snapshot) -> None:
    """Raise ``Conflict`` where the snapshot is another drive's."""
    if snapshot.drive_id != drive.pk:
        raise Conflict(
            f"“{snapshot.name}” is a snapshot of the drive “{snapshot.drive.name}”.",
            hint=f"Make a drive of it: nexusctl drive create --from-snapshot {snapshot.name}",
            code="snapshot-of-another",
        )


@transaction.atomic
def rename_snapshot(snapshot: Snapshot, name: str) -> Snapshot:
    """Give a snapshot another name. Raises ``Invalid``, or ``Conflict`` for one that is taken."""
    require_free_name(Snapshot, name)
    before, snapshot.name = snapshot.name, name
    snapshot.save(update_fields=["name"])
    events.append("snapshot.renamed", snapshot, before=before)
    return snapshot


@transaction.atomic
def delete_snapshot(snapshot: Snapshot) -> Operation:
    """Delete a snapshot; drives made of it stay, its children become its parent's.

    Raises ``Conflict`` for a part of a VM snapshot, and while something works with it.
    """
    snapshot = locked(snapshot)
    require_no_vm_snapshot([snapshot])
    require_unused(snapshot)
    require_idle(snapshot.drive)
    if not Snapshot.objects.filter(
        pk=snapshot.pk, state__in=[Snapshot.State.READY, Snapshot.State.MISSING]
    ).update(state=Snapshot.State.DELETING):
        raise Conflict(f"The snapshot “{snapshot.name}” is {snapshot.state}.", code="snapshot-busy")
    return open_operation(
        "snapshot.delete",
        f"Delete snapshot {snapshot.name}",
        subject=snapshot,
        params={"snapshot": snapshot.ref},
    )


def require_no_vm_snapshot(snapshots: Iterable[Snapshot]) -> None:
    """Raise ``Conflict`` where one of them is a part of a VM's snapshot, which needs it."""
    parts = [snapshot.part for snapshot in snapshots if hasattr(snapshot, "part")]
    wholes = {part.vm_snapshot.name: part.snapshot.name for part in parts}
    if wholes:
        whole, part = next(iter(wholes.items()))
        raise Conflict(
            f"The snapshot “{part}” is a part of the VM snapshot “{whole}”.",
            hint=f"Delete that one: nexusctl vm snapshot-delete {whole}",
            code="snapshot-of-vm",
            extra={"vm_snapshots": list(wholes)},
        )


def discard_snapshot(snapshot: Snapshot) -> None:
    """Delete the snapshot's storage, then its row; safe to repeat.

    What went on from it goes on from its parent. Raises ``Conflict`` for a part of a VM snapshot.
    """
    now = Snapshot.objects.select_related("part__vm_snapshot").filter(pk=snapshot.pk)
    require_no_vm_snapshot(now)
    storage().delete_snapshot(snapshot.ref)
    with transaction.atomic():
        Snapshot.objects.filter(parent=snapshot).update(parent=snapshot.parent_id)
        Drive.objects.filter(head=snapshot).update(head=snapshot.parent_id)
        events.append("snapshot.deleted", snapshot, drive=snapshot.drive.ref)
        Snapshot.objects.filter(pk=snapshot.pk).delete()


# What workers run


def take_plan(operation: Operation) -> Plan:
    return [Step("snapshot", "Copy the drive", _take, done=_is_taken, undo=_drop)]


def delete_plan(operation: Operation) -> Plan:
    return [Step("storage", "Delete the storage", _delete)]


def _snapshot(run: Run) -> Snapshot | None:
    rows = Snapshot.objects.select_related("drive")
    return rows.filter(pk=NexusID.parse(run.params["snapshot"])).first()


def _is_taken(run: Run) -> str | None:
    snapshot = _snapshot(run)
    ready = snapshot is not None and snapshot.state == Snapshot.State.READY
    return f"{snapshot} is there" if ready else None


def _take(run: Run) -> str:
    snapshot = _snapshot(run)
    if snapshot is None:
        raise Conflict("The snapshot has been deleted meanwhile.", code="snapshot-gone")
    run.keep(snapshot=snapshot.ref)
    with live().hold([snapshot.drive], run) as consistency:
        copy_snapshot(snapshot, consistency, progress_of(run))
    return f"{snapshot.name}, {Consistency(consistency).label}"


def _drop(run: Run) -> None:
    snapshot = _snapshot(run)
    if snapshot is not None:
        discard_snapshot(snapshot)


def _delete(run: Run) -> str | None:
    snapshot = _snapshot(run)
    if snapshot is None:
        return "it is gone already"
    discard_snapshot(snapshot)
    return None


def delete_failed(operation: Operation, error: NexusError) -> None:
    """What could not be deleted, or was not to be after all, can be used or deleted again."""
    snapshot = Snapshot.objects.filter(pk=NexusID.parse(operation.params["snapshot"])).first()
    if snapshot is not None and snapshot.state == Snapshot.State.DELETING:
        settle(snapshot)

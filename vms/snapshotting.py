"""What it takes to make and to delete a snapshot of a VM, or a checkpoint: the lists of steps."""

from __future__ import annotations

import shutil

from django.db import transaction

from drives import services as drive_services
from drives.models import Snapshot
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms.live_drives import Held, hold
from vms.models import VM, VMSnapshot
from vms.paths import checkpoint_memory
from vms.saved_memory import unfinished


def take_plan(operation: Operation) -> Plan:
    if operation.params.get("memory"):
        from vms import checkpoints  # it needs what is here

        return [checkpoints.step()]
    return [Step("copy", "Copy the drives", take, done=is_taken, undo=drop)]


def delete_plan(operation: Operation) -> Plan:
    return [
        Step("forget", "Forget the snapshot", forget),
        Step("storage", "Delete its storage", delete_storage),
    ]


def find(run: Run) -> VMSnapshot | None:
    """The snapshot that an operation is about, unless it has been deleted."""
    rows = VMSnapshot.objects.select_related("vm")
    return rows.filter(pk=NexusID.parse(run.params["vm_snapshot"])).first()


def find_ready(run: Run) -> VMSnapshot:
    """The same for those that need it."""
    snapshot = find(run)
    if snapshot is None:
        raise Conflict("The snapshot has been deleted meanwhile.", code="vm-snapshot-gone")
    return snapshot


def parts_of(snapshot: VMSnapshot) -> list[Snapshot]:
    return list(snapshot.drives.select_related("drive"))


def is_taken(run: Run) -> str | None:
    snapshot = find(run)
    ready = snapshot is not None and snapshot.state == VMSnapshot.State.READY
    return f"{snapshot} is there" if ready else None


def take(run: Run) -> str:
    """All drives at one instant; what an interrupted attempt copied is copied again."""
    snapshot = find_ready(run)
    run.keep(vm_snapshot=snapshot.ref)
    parts = parts_of(snapshot)
    progress = drive_services.progress_of(run)
    with hold([part.drive for part in parts], run) as held:
        drive_services.copy_snapshots(parts, held.consistency, progress)
    mark_ready(snapshot, held)
    return f"{snapshot.name}, {held.consistency.label}{standstill(held)}"


def standstill(held: Held) -> str:
    """How long the VM was held, in words; empty where it did not run before."""
    return f", held for {held.milliseconds} ms" if held.milliseconds is not None else ""


@transaction.atomic
def mark_ready(snapshot: VMSnapshot, held: Held) -> None:
    """It is there, and its VM goes on from it."""
    vm = VM.objects.select_for_update().get(pk=snapshot.vm_id)
    snapshot.state = VMSnapshot.State.READY
    snapshot.parent_id = vm.head_id
    snapshot.consistency, snapshot.held_ms = held.consistency, held.milliseconds
    snapshot.save()
    VM.objects.filter(pk=vm.pk).update(head=snapshot)
    events.append(
        "vm.snapshot_ready",
        vm,
        snapshot=snapshot.ref,
        snapshot_name=snapshot.name,
        consistency=held.consistency,
        held_ms=held.milliseconds,
        memory_bytes=snapshot.memory_bytes,
    )


def drop(run: Run) -> None:
    """Also what an interrupted attempt to drop it has left."""
    snapshot = find(run)
    if snapshot is not None:
        remove_row(snapshot)
    discard_parts(run.params["snapshots"])


def discard_parts(refs: list[str]) -> None:
    """Snapshots of drives that belong to no VM's snapshot any more; repeatable."""
    parts = Snapshot.objects.filter(pk__in=[NexusID.parse(ref) for ref in refs])
    for part in parts.select_related("drive"):
        drive_services.discard_snapshot(part)


def remove_row(snapshot: VMSnapshot) -> None:
    """The row, and before it its memory; what went on from it goes on from its parent."""
    for directory in (checkpoint_memory(snapshot), unfinished(checkpoint_memory(snapshot))):
        shutil.rmtree(directory, ignore_errors=True)
    with transaction.atomic():
        _remove_row(snapshot)


def _remove_row(snapshot: VMSnapshot) -> None:
    VMSnapshot.objects.filter(parent=snapshot).update(parent=snapshot.parent_id)
    VM.objects.filter(head=snapshot).update(head=snapshot.parent_id)
    events.append(
        "vm.snapshot_deleted", snapshot.vm, snapshot=snapshot.ref, snapshot_name=snapshot.name
    )
    snapshot.delete()


def forget(run: Run) -> str | None:
    """Nobody can choose it any more; its drives' snapshots are remembered for the next step."""
    snapshot = find(run)
    if snapshot is None:
        return "it is gone already"
    run.keep(snapshots=[part.ref for part in parts_of(snapshot)])
    remove_row(snapshot)
    return None


def delete_storage(run: Run) -> str:
    refs = run.made.get("snapshots", [])
    discard_parts(refs)
    return f"{len(refs)} deleted"


def delete_failed(operation: Operation, error: NexusError) -> None:
    """What was not to be deleted after all can be used, or deleted again."""
    rows = VMSnapshot.objects.filter(pk=NexusID.parse(operation.params["vm_snapshot"]))
    rows.filter(state=VMSnapshot.State.DELETING).update(state=VMSnapshot.State.READY)

"""What it takes to make and to delete a snapshot of a VM: the lists of steps."""

from __future__ import annotations

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


def take_plan(operation: Operation) -> Plan:
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
    _mark_ready(snapshot, held)
    still = f", held for {held.milliseconds} ms" if held.milliseconds is not None else ""
    return f"{snapshot.name}, {held.consistency.label}{still}"


@transaction.atomic
def _mark_ready(snapshot: VMSnapshot, held: Held) -> None:
    """It is there, and its VM goes on from it."""
    vm = VM.objects.select_for_update().get(pk=snapshot.vm_id)
    snapshot.state = VMSnapshot.State.READY
    snapshot.parent_id = vm.head_id
    snapshot.consistency, snapshot.held_ms = held.consistency, held.milliseconds
    snapshot.save(update_fields=["state", "parent", "consistency", "held_ms"])
    VM.objects.filter(pk=vm.pk).update(head=snapshot)
    events.append(
        "vm.snapshot_ready",
        vm,
        snapshot=snapshot.ref,
        snapshot_name=snapshot.name,
        consistency=held.consistency,
        held_ms=held.milliseconds,
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


@transaction.atomic
def remove_row(snapshot: VMSnapshot) -> None:
    """The row; what went on from it goes on from its parent."""
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

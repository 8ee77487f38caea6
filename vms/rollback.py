"""What it takes to set drives back to a snapshot: the lists of steps.

A VM that runs is shut down before and started again after; nothing writes to a drive meanwhile.
"""

from __future__ import annotations

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive, Snapshot
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms.lifecycle import begin_start, start_plan, stop_plan, vm_of
from vms.models import VM
from vms.snapshotting import find_ready, parts_of
from vms.states import AT_REST


def vm_plan(operation: Operation) -> Plan:
    return _around(operation, Step("restore", "Restore the drives", restore_vm))


def drive_plan(operation: Operation) -> Plan:
    return _around(operation, Step("restore", "Restore the drive", restore_drive))


def _around(operation: Operation, restore: Step) -> Plan:
    if not operation.params["restarts"]:
        return [restore]
    again = Step("start", "Start it again", begin_start)
    return [*stop_plan(operation), restore, again, *start_plan(operation)]


def restore_vm(run: Run) -> str:
    """All drives of the snapshot; those that the VM was given later stay as they are."""
    vm, snapshot = vm_of(run), find_ready(run)
    _require_rest(vm)
    parts = parts_of(snapshot)
    for part in parts:
        drive_services.restore(part.drive, part)
    with transaction.atomic():
        VM.objects.filter(pk=vm.pk).update(head=snapshot)
        events.append("vm.rolled_back", vm, snapshot=snapshot.ref, snapshot_name=snapshot.name)
    restored = {part.drive_id for part in parts}
    others = vm.attachments.exclude(drive_id__in=restored).select_related("drive")
    stay = [attachment.drive.name for attachment in others]
    note = ", ".join(part.drive.name for part in parts)
    return f"{note}; not in the snapshot: {', '.join(stay)}" if stay else note


def restore_drive(run: Run) -> str:
    drive = Drive.objects.filter(pk=NexusID.parse(run.params["drive"])).first()
    rows = Snapshot.objects.select_related("drive")
    snapshot = rows.filter(pk=NexusID.parse(run.params["snapshot"])).first()
    if drive is None or snapshot is None:
        raise Conflict("Drive or snapshot have been deleted meanwhile.", code="snapshot-gone")
    if run.params["vm"]:
        _require_rest(vm_of(run))
    return drive_services.restore(drive, snapshot)


def _require_rest(vm: VM) -> None:
    if vm.state not in AT_REST:
        raise Conflict(f"The VM “{vm.name}” is {vm.state}; nothing was changed.", code="vm-runs")

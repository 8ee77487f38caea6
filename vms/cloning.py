"""What it takes to clone a VM: the list of steps. Its rows are there from the beginning."""

from __future__ import annotations

from contextlib import nullcontext

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms.lifecycle import foresee_hypervisor, remove, start_as_child, vm_of
from vms.live_drives import hold
from vms.models import VM


def plan(operation: Operation) -> Plan:
    steps = [Step("drives", "Copy the drives", copy_drives, undo=drop, keeps=True)]
    if operation.params["start"]:
        steps.append(Step("start", "Start the VM", start_as_child, foresee=foresee_hypervisor))
    return steps


def copy_drives(run: Run) -> str:
    """The storage of the clone's drives, at one instant where they are copies of other drives."""
    clone = vm_of(run)
    run.keep(vm=clone.ref)
    drives = _drives(clone)
    sources = [
        drive.source_drive
        for drive in drives
        if drive.origin == Drive.Origin.DRIVE and drive.source_drive is not None
    ]
    if sources and any(drive.state != Drive.State.READY for drive in drives):
        _begin_anew(drives)
    with hold(sources, run) if sources else nullcontext() as held:
        for drive in drives:
            drive_services.fill(drive, run)
    names = ", ".join(drive.name for drive in drives)
    return f"{names}, {held.consistency.label}" if held else names


def _begin_anew(drives: list[Drive]) -> None:
    """What an interrupted attempt has copied is of another instant."""
    Drive.objects.filter(pk__in=[drive.pk for drive in drives]).update(state=Drive.State.CREATING)
    for drive in drives:
        drive.state = Drive.State.CREATING


def _drives(vm: VM) -> list[Drive]:
    rows = Drive.objects.select_related("image", "source_drive", "source_snapshot")
    return list(rows.filter(attachment__vm=vm).order_by("-attachment__is_root", "created_at"))


def drop(run: Run) -> None:
    """The VM and its drives are gone again, also what an interrupted attempt has left."""
    vm = VM.objects.filter(pk=NexusID.parse(run.params["vm"])).first()
    if vm is not None:
        remove(vm)
    for drive in Drive.objects.filter(pk__in=[NexusID.parse(ref) for ref in run.params["drives"]]):
        drive_services.discard(drive)

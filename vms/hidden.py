"""VMs that people do not see: those of warm templates, and those that wait in pools."""

from __future__ import annotations

from django.db.models import Q

from drives import services as drive_services
from drives.models import Drive
from vms import lifecycle, outcomes, snapshotting
from vms.models import VM
from vms.states import ALIVE, State
from vms.transitions import try_move


def discard(vm: VM) -> None:
    """Delete one with its checkpoint and its drive. Its row goes last, so that a worker that is
    killed meanwhile finds what is left."""
    try_move(vm, State.STOPPING, "it is not needed any more", only_from=ALIVE)
    outcomes.vmm_ended(vm, outcomes.end_vmm(vm))
    for snapshot in vm.snapshots.all():
        parts = [part.ref for part in snapshotting.parts_of(snapshot)]
        snapshotting.remove_row(snapshot)
        snapshotting.discard_parts(parts)
    drives = list(Drive.objects.filter(Q(attachment__vm=vm) | Q(name=vm.name)))
    vm.attachments.all().delete()
    for drive in drives:
        drive_services.discard(drive, with_snapshots=True)
    lifecycle.remove(vm)

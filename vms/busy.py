"""What works on a VM or on its drives just now."""

from __future__ import annotations

from collections.abc import Sequence

from django.db.models import Q, QuerySet

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operations
from vms.models import VM

#: These hold the VM for moments or leave it alone: whoever stops it waits for them.
_HOLDING = {
    *("vm.snapshot", "vm-snapshot.delete", "drive.snapshot"),
    *("drive.plug", "drive.unplug", "vm.balloon", "vm.fork"),
}


def operations_on(vm: VM) -> QuerySet[Operation]:
    """Operations on the VM or on one of its drives that have not ended, oldest first."""
    drives = Drive.objects.filter(attachment__vm=vm).values("pk")
    return open_operations().filter(
        Q(subject_kind="vm", subject_id=vm.pk) | Q(subject_kind="drive", subject_id__in=drives)
    )


def require_unchanged(drives: Sequence[Drive], vm: VM | None, *, by: Operation) -> None:
    """Raise ``Conflict`` while an operation other than ``by`` may write to the drives, which
    are in ``vm``, at rest, or in none."""
    ids = [drive.pk for drive in drives]
    others = (
        operations_on(vm)
        if vm
        else open_operations().filter(subject_kind="drive", subject_id__in=ids)
    )
    other = others.exclude(pk=by.parent_id or by.pk).exclude(kind__in=_HOLDING).first()
    if other is not None:
        raise _busy(f"The VM “{vm.name}”" if vm else f"The drive “{drives[0].name}”", other)


def starting_operations(vm: VM) -> list[Operation]:
    """Those that may start the VM (again), and so end when it is to stop."""
    return list(operations_on(vm).exclude(kind__in=_HOLDING))


def require_idle(vm: VM) -> None:
    """Raise ``Conflict`` while an operation works on the VM or one of its drives."""
    refuse_for(vm, operations_on(vm))


def require_free(vm: VM) -> None:
    """Raise ``Conflict`` unless VM and drives may be changed: nothing works on them, and no
    drive is being made of one of them."""
    require_idle(vm)
    _require_free_drives(vm)


def require_not_copied(vm: VM) -> None:
    """Raise ``Conflict`` while snapshots or clones of it are made, which need VM and drives."""
    refuse_for(vm, operations_on(vm).filter(kind__in=_HOLDING))
    _require_free_drives(vm)


def _require_free_drives(vm: VM) -> None:
    for drive in Drive.objects.filter(attachment__vm=vm):
        drive_services.require_free(drive)


def refuse_for(vm: VM, others: QuerySet[Operation]) -> None:
    """Raise the ``Conflict`` of the first of ``others``, which work on the VM."""
    other = others.first()
    if other is not None:
        raise _busy(f"The VM “{vm.name}”", other)


def _busy(who: str, other: Operation) -> Conflict:
    return Conflict(
        f"{who} is busy: {other.title} ({other.state}).",
        hint=f"Wait for it: nexusctl operation wait {other.ref}",
        code="vm-busy",
        extra={"operation": other.ref},
    )

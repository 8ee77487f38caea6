"""Drives in VMs: put in, taken out, and set back to what they were."""

from __future__ import annotations

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive, Snapshot
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.busy import require_idle
from vms.drivers import driver_of
from vms.models import VM, Attachment
from vms.paths import vm_dir
from vms.services.rules import open_rollback, require_no_memory
from vms.states import AT_REST, State


@transaction.atomic
def attach_drive(
    vm: VM,
    drive: Drive,
    *,
    is_root: bool = True,
    read_only: bool = False,
    delete_with_vm: bool | None = None,
) -> Operation | None:
    """Put a drive into a VM, by default as its root; returns what plugs it into one that runs.

    ``delete_with_vm`` says whether it goes when the VM goes; None leaves that as it is. Raises
    ``Conflict``: it is in a VM already, a second root drive, something works on VM or drive, or
    drives cannot come and go just now (``no-hotplug``).
    """
    require_no_memory(vm, "get another drive")
    _require_pluggable(vm)
    holder = Attachment.objects.select_related("vm").filter(drive=drive).first()
    if holder:
        raise Conflict(
            f"The drive “{drive.name}” is attached to the VM “{holder.vm.name}”.",
            hint=f"Detach it first: nexusctl drive detach {drive.name}",
            code="drive-attached",
            extra={"vm": holder.vm.ref},
        )
    if drive.state not in (Drive.State.READY, Drive.State.CREATING):
        raise Conflict(f"The drive “{drive.name}” is {drive.state}.", code="drive-busy")
    drive_services.require_free(drive)
    if is_root and vm.attachments.filter(is_root=True).exists():
        raise Conflict(
            f"The VM “{vm.name}” has a root drive already.",
            hint="Attach this one as a data drive: --data (is_root: false).",
            code="second-root-drive",
        )
    runs = vm.state not in AT_REST
    if runs:
        drive_services.require_ready(drive)
    Attachment.objects.create(vm=vm, drive=drive, is_root=is_root, read_only=read_only)
    if delete_with_vm is not None and delete_with_vm != drive.delete_with_vm:
        drive_services.set_delete_with_vm(drive, delete_with_vm)
    events.append("drive.attached", drive, vm=vm.ref, vm_name=vm.name, is_root=is_root)
    return (
        _open("drive.plug", f"Attach drive {drive.name} to {vm.name}", vm, drive) if runs else None
    )


@transaction.atomic
def detach_drive(drive: Drive) -> Operation | None:
    """Take a drive out of its VM; returns what unplugs it from one that runs.

    ``Conflict`` as for ``attach_drive``. The operation fails with one (``drive-mounted``), and
    changes nothing, where the guest uses the drive.
    """
    attachment = Attachment.objects.select_related("vm").filter(drive=drive).first()
    if attachment is None:
        raise Conflict(f"The drive “{drive.name}” is not attached.", code="drive-not-attached")
    vm = attachment.vm
    require_no_memory(vm, "lose a drive")
    _require_pluggable(vm, drive)
    drive_services.require_free(drive)
    if vm.state not in AT_REST:
        return _open("drive.unplug", f"Detach drive {drive.name} from {vm.name}", vm, drive)
    attachment.delete()
    events.append("drive.detached", drive, vm=vm.ref, vm_name=vm.name)
    return None


def hotplug_problem(vm: VM, drive: Drive | None = None) -> str:
    """Why drives cannot come and go now, or why ``drive`` cannot go; empty when they can."""
    if vm.state in AT_REST:
        return ""
    if vm.state != State.READY:
        return f"The VM “{vm.name}” is {vm.state}."
    return driver_of(vm).hotplug_problem(vm_dir(vm), drive.ref if drive else "")


def _require_pluggable(vm: VM, drive: Drive | None = None) -> None:
    problem = hotplug_problem(vm, drive)
    if problem:
        what = f"lose the drive “{drive.name}”" if drive else "take a drive"
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state} and cannot {what} now.",
            detail=problem,
            hint=f"Stop it first: nexusctl vm stop {vm.name}",
            code="no-hotplug",
        )
    require_idle(vm)


def _open(kind: str, title: str, vm: VM, drive: Drive) -> Operation:
    params = {"vm": vm.ref, "drive": drive.ref}
    return open_operation(kind, title, subject=drive, params=params)


@transaction.atomic
def rollback_drive(drive: Drive, snapshot: Snapshot, *, stop: bool = False) -> Operation:
    """Give a drive the contents and the size that it had in one of its snapshots.

    A VM that runs with it is shut down before and started again after, as one operation, if
    ``stop``; else that is a ``Conflict``.
    """
    drive_services.require_own(drive, snapshot)
    drive_services.require_ready(drive)
    drive_services.require_ready(snapshot)
    drive_services.require_free(drive)
    attachment = Attachment.objects.select_related("vm").filter(drive=drive).first()
    return open_rollback(
        "drive.rollback",
        f"Roll drive {drive.name} back to {snapshot.name}",
        subject=drive,
        params={"drive": drive.ref, "snapshot": snapshot.ref},
        vm=attachment.vm if attachment else None,
        stop=stop,
    )

"""Drives in VMs: put in, taken out, and set back to what they were."""

from __future__ import annotations

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive, Snapshot
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from vms import drivers
from vms.busy import require_idle
from vms.models import VM, Attachment
from vms.services.rules import open_rollback
from vms.states import ALIVE, AT_REST


@transaction.atomic
def attach_drive(
    vm: VM,
    drive: Drive,
    *,
    is_root: bool = True,
    read_only: bool = False,
    delete_with_vm: bool | None = None,
) -> Attachment:
    """Put a drive into a VM, by default as its root.

    ``delete_with_vm`` says whether it goes when the VM goes; None leaves that as it is. Raises
    ``Conflict``: it is in a VM already, a second root drive, something works on VM or drive, or
    drives cannot come and go just now (``no-hotplug``).
    """
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
            hint="Attach this one as a data drive (root: false).",
            code="second-root-drive",
        )
    attachment = Attachment.objects.create(vm=vm, drive=drive, is_root=is_root, read_only=read_only)
    if delete_with_vm is not None and delete_with_vm != drive.delete_with_vm:
        drive_services.set_delete_with_vm(drive, delete_with_vm)
    events.append("drive.attached", drive, vm=vm.ref, vm_name=vm.name, is_root=is_root)
    return attachment


@transaction.atomic
def detach_drive(drive: Drive) -> None:
    """Take a drive out of its VM; ``Conflict`` as for ``attach_drive``."""
    attachment = Attachment.objects.select_related("vm").filter(drive=drive).first()
    if attachment is None:
        raise Conflict(f"The drive “{drive.name}” is not attached.", code="drive-not-attached")
    _require_pluggable(attachment.vm)
    drive_services.require_free(drive)
    attachment.delete()
    events.append("drive.detached", drive, vm=attachment.vm.ref, vm_name=attachment.vm.name)


def hotplug_problem(vm: VM) -> str:
    """Why drives cannot come and go now; empty when they can."""
    if vm.state in AT_REST:
        return ""
    if vm.state not in ALIVE:
        return f"The VM “{vm.name}” is {vm.state}."
    return drivers.hotplug_problem(vm.hypervisor)


def _require_pluggable(vm: VM) -> None:
    problem = hotplug_problem(vm)
    if problem:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only a VM at rest can take or lose a drive.",
            detail=problem,
            hint=f"Stop it first: nexusctl vm stop {vm.name}",
            code="no-hotplug",
        )
    require_idle(vm)


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

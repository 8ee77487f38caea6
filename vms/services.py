"""The rules about VMs: the only code that changes one.

Each function checks, records the wish and opens an operation in one transaction; workers
do the work (``lifecycle``). What the supervisor learns of reality comes in by ``record``.
"""

from __future__ import annotations

import secrets
from datetime import timedelta

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive
from images.models import Image, Kernel
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.ids import check_name, free_name, resolve
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel, open_operation, open_operations
from vms.capacity import check_size, host_capacity
from vms.console import ConsolePage, read_console
from vms.models import VM, Attachment
from vms.queries import counts_by_state
from vms.states import ALIVE, AT_REST, Desired, State
from vms.transitions import move, record_creation

__all__ = [
    "ConsolePage",
    "attach_drive",
    "counts_by_state",
    "create_vm",
    "delete_vm",
    "detach_drive",
    "host_capacity",
    "read_console",
    "rename_vm",
    "restart_vm",
    "start_vm",
    "stop_vm",
    "update_vm",
]

DEFAULT_MEMORY_MIB = 512


@transaction.atomic
def create_vm(
    *,
    name: str = "",
    image: str = "",
    drive: str = "",
    vcpu_count: int = 1,
    mem_size_mib: int = DEFAULT_MEMORY_MIB,
    kernel: str = "",
    start: bool = False,
) -> Operation:
    """A VM from an image (a new drive is made of it) or with an existing drive as its root."""
    if bool(image) == bool(drive):
        raise Invalid(
            "Give either an image or a drive.",
            hint="An image gives the VM a new drive of its own; a drive is used as it is.",
            code="image-or-drive",
        )
    name = new_name(name)
    check_size(vcpu_count, mem_size_mib)
    vm = new_vm(
        name,
        vcpu_count=vcpu_count,
        mem_size_mib=mem_size_mib,
        kernel=resolve(Kernel.objects.all(), kernel) if kernel else None,
    )
    if image:
        root = drive_services.new_drive(resolve(Image.objects.all(), image), name=name)
    else:
        root = resolve(Drive.objects.all(), drive)
    attach_drive(vm, root)
    return open_operation(
        "vm.create",
        f"Create VM {name}",
        subject=vm,
        params={"vm": vm.ref, "drive": root.ref, "new_drive": bool(image), "start": start},
    )


def new_vm(name: str, *, vcpu_count: int, mem_size_mib: int, kernel: Kernel | None = None) -> VM:
    """The row of a new VM, with the first line of its history."""
    vm = VM.objects.create(
        name=name,
        vcpu_count=vcpu_count,
        mem_size_mib=mem_size_mib,
        kernel=kernel,
        mac=_random_mac(),
    )
    record_creation(vm, "created")
    return vm


@transaction.atomic
def start_vm(vm: VM) -> Operation:
    """Start a VM that has no VMM. Raises ``Conflict`` when it runs, or is busy otherwise."""
    if vm.state not in AT_REST:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}.",
            hint="Only a VM that does not run can be started.",
            code="vm-runs",
        )
    _ensure_free(vm)
    _require_root_drive(vm)
    check_size(vm.vcpu_count, vm.mem_size_mib)
    operation = open_operation("vm.start", f"Start VM {vm.name}", subject=vm, params={"vm": vm.ref})
    wish(vm, Desired.RUNNING)
    with events.acting(events.current_actor(), operation):
        move(vm, State.STARTING, "start requested")
    return operation


@transaction.atomic
def stop_vm(vm: VM, *, force: bool = False) -> Operation:
    """Shut a VM down: the agent first, then the power button, then (or with ``force``) kill."""
    stuck = vm.state == State.STOPPING and not open_operations(vm).exists()
    if not stuck and vm.state not in ALIVE | {State.STARTING}:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; there is nothing to stop.", code="vm-not-running"
        )
    for start in open_operations(vm):
        cancel(start)
    operation = open_operation(
        "vm.stop",
        f"{'Kill' if force else 'Stop'} VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "force": force},
        deadline=timedelta(minutes=5),
    )
    wish(vm, Desired.STOPPED)
    if not stuck:
        with events.acting(events.current_actor(), operation):
            move(vm, State.STOPPING, "forced stop requested" if force else "stop requested")
    return operation


@transaction.atomic
def restart_vm(vm: VM) -> Operation:
    """Shut down and start again, as one operation."""
    if vm.state not in ALIVE:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only a running VM can be restarted.",
            hint=f"Start it: nexusctl vm start {vm.name}",
            code="vm-not-running",
        )
    _ensure_free(vm)
    operation = open_operation(
        "vm.restart",
        f"Restart VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "force": False},
    )
    wish(vm, Desired.RUNNING)
    with events.acting(events.current_actor(), operation):
        move(vm, State.STOPPING, "restart requested")
    return operation


@transaction.atomic
def delete_vm(vm: VM, *, force: bool = False, keep_drives: bool = False) -> Operation:
    """Delete a VM and, unless ``keep_drives``, its drives. A running one needs ``force``."""
    runs = vm.state not in AT_REST
    if runs and not force:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}.",
            hint="Stop it first, or force the deletion.",
            code="vm-runs",
        )
    if runs:
        for start in open_operations(vm):
            cancel(start)
    else:
        _ensure_free(vm)
    operation = open_operation(
        "vm.delete",
        f"Delete VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "name": vm.name, "force": True, "keep_drives": keep_drives},
    )
    if runs and vm.state != State.STOPPING:
        with events.acting(events.current_actor(), operation):
            move(vm, State.STOPPING, "deletion requested")
    return operation


@transaction.atomic
def rename_vm(vm: VM, name: str) -> VM:
    """Give a VM another name; its guest takes it as hostname at the next start."""
    before = vm.name
    vm.name = new_name(name)
    vm.save(update_fields=["name"])
    events.append("vm.renamed", vm, before=before)
    return vm


@transaction.atomic
def update_vm(vm: VM, *, vcpu_count: int | None = None, mem_size_mib: int | None = None) -> VM:
    """Change the size of a VM at rest."""
    _require_rest(vm, "be changed")
    vm.vcpu_count = vcpu_count or vm.vcpu_count
    vm.mem_size_mib = mem_size_mib or vm.mem_size_mib
    check_size(vm.vcpu_count, vm.mem_size_mib)
    vm.save(update_fields=["vcpu_count", "mem_size_mib"])
    events.append("vm.changed", vm, vcpu_count=vm.vcpu_count, mem_size_mib=vm.mem_size_mib)
    return vm


@transaction.atomic
def attach_drive(
    vm: VM, drive: Drive, *, is_root: bool = True, read_only: bool = False
) -> Attachment:
    """Put a drive into a VM at rest, by default as its root."""
    _require_rest(vm, "take a drive")
    holder = Attachment.objects.select_related("vm").filter(drive=drive).first()
    if holder:
        raise Conflict(
            f"The drive “{drive.name}” is attached to the VM “{holder.vm.name}”.",
            hint=f"Detach it first: nexusctl drive detach {drive.name}",
            code="drive-attached",
        )
    if drive.state == Drive.State.DELETING:
        raise Conflict(f"The drive “{drive.name}” is being deleted.", code="drive-busy")
    if is_root and vm.attachments.filter(is_root=True).exists():
        raise Conflict(
            f"The VM “{vm.name}” has a root drive already.",
            hint="Attach this one as a data drive (root: false).",
            code="second-root-drive",
        )
    attachment = Attachment.objects.create(vm=vm, drive=drive, is_root=is_root, read_only=read_only)
    events.append("drive.attached", drive, vm=vm.ref, vm_name=vm.name, is_root=is_root)
    return attachment


@transaction.atomic
def detach_drive(drive: Drive) -> None:
    """Take a drive out of its VM, which must be at rest."""
    attachment = Attachment.objects.select_related("vm").filter(drive=drive).first()
    if attachment is None:
        raise Conflict(f"The drive “{drive.name}” is not attached.", code="drive-not-attached")
    _require_rest(attachment.vm, "lose a drive")
    attachment.delete()
    events.append("drive.detached", drive, vm=attachment.vm.ref, vm_name=attachment.vm.name)


def new_name(name: str) -> str:
    """``name``, checked and free, or a generated one."""
    if not name:
        return free_name(_name_taken)
    check_name(name)
    if _name_taken(name):
        raise Conflict(
            f"There is a VM “{name}” already.",
            hint="Choose another name, or leave it out to get one.",
            code="name-taken",
        )
    return name


def _name_taken(name: str) -> bool:
    promised = open_operations().filter(kind__startswith="vm.from-", subject_name=name)
    return VM.objects.filter(name=name).exists() or promised.exists()


def _random_mac() -> str:
    """A random unicast address of the locally administered range 52:54:00 (QEMU's own)."""
    return "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3))


def wish(vm: VM, desired: Desired) -> None:
    VM.objects.filter(pk=vm.pk).update(desired_state=desired)
    vm.desired_state = desired


def _ensure_free(vm: VM) -> None:
    """Raise ``Conflict`` while another operation works on the VM."""
    other = open_operations(vm).first()
    if other is not None:
        raise Conflict(
            f"The VM “{vm.name}” is busy: {other.title} ({other.state}).",
            hint=f"Wait for it: nexusctl operation wait {other.ref}",
            code="vm-busy",
            extra={"operation": other.ref},
        )


def _require_rest(vm: VM, what: str) -> None:
    if vm.state not in AT_REST:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only a VM at rest can {what}.",
            hint=f"Stop it first: nexusctl vm stop {vm.name}",
            code="vm-runs",
        )


def _require_root_drive(vm: VM) -> None:
    if not vm.attachments.filter(is_root=True).exists():
        raise Conflict(
            f"The VM “{vm.name}” has no root drive.",
            hint=f"Attach one: nexusctl drive attach DRIVE {vm.name}",
            code="no-root-drive",
        )

"""The rules about VMs: the only code that changes one.

Each function checks, records the wish and opens an operation in one transaction; workers
do the work (``lifecycle``). What the supervisor learns of reality comes in by ``record``.
"""

from __future__ import annotations

import secrets
from datetime import timedelta
from typing import Unpack, cast

from django.db import transaction
from django.utils import timezone

from drives import services as drive_services
from drives.models import Drive, Snapshot
from images.models import Image, Kernel
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.ids import check_name, free_name, resolve
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel, open_operation, open_operations
from vms import restarts
from vms.busy import (
    operations_on,
    require_free,
    require_idle,
    require_not_copied,
    starting_operations,
)
from vms.capacity import MIN_MEMORY_MIB, check_size
from vms.choice import require_usable
from vms.models import VM
from vms.services.drives import attach_drive
from vms.services.provisioning import Wanted, replace_provisioning
from vms.services.rules import require_rest, wish
from vms.shape import ANY_TIME, Shape, checked, new_shape, shape_of
from vms.states import ALIVE, AT_REST, Desired, State
from vms.transitions import move, record_creation

_STOPPABLE = ALIVE | {State.STARTING, State.SUSPENDED}


@transaction.atomic
def create_vm(
    *,
    name: str = "",
    image: str = "",
    drive: str = "",
    kernel: str = "",
    start: bool = False,
    cold: bool = False,
    provisioning: Wanted | None = None,
    **shape: Unpack[Shape],
) -> Operation:
    """A VM from an image (a new drive is made of it) or with an existing drive as its root."""
    if bool(image) == bool(drive):
        raise Invalid(
            "Give either an image or a drive.",
            hint="An image gives the VM a new drive of its own; a drive is used as it is.",
            code="image-or-drive",
        )
    name = new_name(name)
    vm = new_vm(name, shape=new_shape(shape), kernel=find_kernel(kernel))
    if image:
        made_of = resolve(Image.objects.all(), image)
        root = drive_services.new_drive(made_of, name=name, delete_with_vm=True)
    else:
        root = resolve(Drive.objects.all(), drive)
    attach_drive(vm, root)
    if provisioning:
        replace_provisioning(vm, **provisioning)
    return open_operation(
        "vm.create",
        f"Create VM {name}",
        subject=vm,
        params={
            "vm": vm.ref,
            "drive": root.ref,
            "new_drive": bool(image),
            "start": start,
            "cold": cold,
        },
    )


def new_vm(name: str, *, shape: Shape, kernel: Kernel | None = None, reason: str = "created") -> VM:
    """The row of a new VM of a ``checked`` shape, with the first line of its history."""
    vm = VM.objects.create(name=name, kernel=kernel, mac=_random_mac(), **shape)
    record_creation(vm, reason)
    return vm


@transaction.atomic
def start_vm(
    vm: VM, *, cold: bool = False, reason: str = "start requested", attempt: int = 0
) -> Operation:
    """Start a VM that has no VMM. Raises ``Conflict`` when it runs, or is busy otherwise.

    ``cold``: its guest boots, whatever memory it could go on from. ``attempt``: which one in a row
    of its restart policy this is; 0 for a person's.
    """
    if vm.state not in AT_REST:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}.",
            hint="Only a VM that does not run can be started.",
            code="vm-runs",
        )
    require_free(vm)
    _require_root_drive(vm)
    check_size(vm.vcpu_count, vm.mem_size_mib)
    require_usable(vm.hypervisor)
    params = {"vm": vm.ref, "cold": cold}
    operation = open_operation("vm.start", f"Start VM {vm.name}", subject=vm, params=params)
    wish(vm, Desired.RUNNING)
    restarts.begin(vm, attempt)
    with events.acting(events.current_actor(), operation):
        move(vm, State.STARTING, reason)
    return operation


@transaction.atomic
def stop_vm(vm: VM, *, force: bool = False, reason: str = "") -> Operation:
    """Shut a VM down: the agent first, then the power button, then (or with ``force``) kill.

    One at rest that its restart policy would start again stays as it is; a suspended one gives
    its memory up.
    """
    stuck = vm.state == State.STOPPING and not operations_on(vm).exists()
    rests = vm.state in AT_REST and vm.restart_at is not None
    if not stuck and not rests and vm.state not in _STOPPABLE:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; there is nothing to stop.", code="vm-not-running"
        )
    for start in starting_operations(vm):
        cancel(start)
    operation = open_operation(
        "vm.stop",
        f"{'Kill' if force else 'Stop'} VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "force": force},
        deadline=timedelta(minutes=5),
    )
    wish(vm, Desired.STOPPED)
    restarts.cancel(vm)
    if not stuck and not rests:
        reason = reason or ("forced stop requested" if force else "stop requested")
        with events.acting(events.current_actor(), operation):
            move(vm, State.STOPPING, reason)
    return operation


@transaction.atomic
def restart_vm(vm: VM, *, force: bool = False, reason: str = "restart requested") -> Operation:
    """Shut down (with ``force``, kill) and start again, as one operation."""
    if vm.state not in ALIVE:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only a running VM can be restarted.",
            hint=f"Start it: nexusctl vm start {vm.name}",
            code="vm-not-running",
        )
    require_free(vm)
    operation = open_operation(
        "vm.restart",
        f"Restart VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "force": force},
    )
    wish(vm, Desired.RUNNING)
    with events.acting(events.current_actor(), operation):
        move(vm, State.STOPPING, reason)
    return operation


@transaction.atomic
def delete_vm(
    vm: VM, *, force: bool = False, keep_drives: bool = False, with_snapshots: bool = False
) -> Operation:
    """Delete a VM and, unless ``keep_drives``, those of its drives that go with it.

    Raises ``Conflict`` when it runs, unless by ``force``; and listing its snapshots and those of
    the drives that go, unless they are to go ``with_snapshots``.
    """
    runs = vm.state not in AT_REST
    if runs and not force:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}.",
            hint="Stop it first, or force the deletion.",
            code="vm-runs",
        )
    if runs:
        require_not_copied(vm)
        for start in starting_operations(vm):
            cancel(start)
    else:
        require_free(vm)
    if not with_snapshots:
        going = Drive.objects.filter(attachment__vm=vm, delete_with_vm=True)
        _require_no_snapshots(vm, [] if keep_drives else list(going))
    restarts.cancel(vm)
    operation = open_operation(
        "vm.delete",
        f"Delete VM {vm.name}",
        subject=vm,
        params={
            "vm": vm.ref,
            "name": vm.name,
            "force": True,
            "keep_drives": keep_drives,
            "with_snapshots": with_snapshots,
        },
    )
    if runs and vm.state != State.STOPPING:
        with events.acting(events.current_actor(), operation):
            move(vm, State.STOPPING, "deletion requested")
    return operation


def _require_no_snapshots(vm: VM, drives: list[Drive]) -> None:
    """Raise ``Conflict`` listing the snapshots of the VM, and of the drives that go with it."""
    alone = Snapshot.objects.filter(drive__in=drives, part=None)
    names = [*vm.snapshots.values_list("name", flat=True), *alone.values_list("name", flat=True)]
    if names:
        raise Conflict(
            f"The VM “{vm.name}” has snapshots: {', '.join(names[:20])}.",
            hint=f"Delete them too: nexusctl vm delete {vm.name} --with-snapshots",
            code="vm-has-snapshots",
            extra={"snapshots": names},
        )


@transaction.atomic
def rename_vm(vm: VM, name: str) -> VM:
    """Give a VM another name; its guest takes it as hostname at the next start."""
    before = vm.name
    vm.name = new_name(name)
    vm.save(update_fields=["name"])
    events.append("vm.renamed", vm, before=before)
    return vm


def find_kernel(ref: str) -> Kernel | None:
    """The kernel that a VM is to be pinned to, by name or ID; None for the default one at each
    start. Raises ``NotFound``, and ``Conflict`` for one that is known not to boot."""
    if not ref:
        return None
    kernel = resolve(Kernel.objects.all(), ref)
    if kernel.state == Kernel.State.BAD:
        raise Conflict(
            f"The kernel “{kernel.name}” did not boot.",
            hint=f"Try it again: nexusctl kernel verify {kernel.name} --boot",
            code="kernel-not-good",
        )
    return kernel


@transaction.atomic
def update_vm(vm: VM, *, kernel: str | None = None, **wanted: Unpack[Shape]) -> VM:
    """Change what a VM at rest is like; at any time its hypervisor, for the next start, and
    what is done when it ends or its agent does not answer.

    ``kernel``: which one it always starts with; empty for the default one, None as it was.
    Raises ``Conflict`` for one that runs, ``Invalid`` for what cannot be.
    """
    before = shape_of(vm)
    shape = checked(cast("Shape", {**before, **wanted}))
    changes = {name: value for name, value in shape.items() if value != before.get(name)}
    if set(changes) - ANY_TIME:
        require_rest(vm, "be changed")
    for name, value in changes.items():
        setattr(vm, name, value)
    if changes.get("idle_suspend_minutes"):
        VM.objects.filter(pk=vm.pk).update(active_at=timezone.now())  # it counts from now
    named = vm.kernel.name if vm.kernel else ""
    pinned = vm.kernel if kernel in (None, named) else find_kernel(kernel or "")
    shown: dict[str, object] = dict(changes)
    if pinned != vm.kernel:
        require_rest(vm, "get another kernel")
        vm.kernel = pinned
        changes["kernel"] = pinned
        shown["kernel"] = pinned.name if pinned else "the default"
    if changes:
        vm.save(update_fields=list(changes))
        events.append("vm.changed", vm, **shown)
        restarts.reconsider(vm)
    return vm


@transaction.atomic
def balloon_vm(vm: VM, mem_size_mib: int) -> Operation:
    """Have the guest of a VM that runs keep only so much of its memory, or all of it again.

    It lasts until the VM stops. Raises ``Conflict`` unless it runs, ``Invalid`` for more memory
    than it has, or less than any VM.
    """
    if vm.state not in ALIVE - {State.PAUSED}:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only a guest that runs gives memory back.",
            code="vm-not-running",
        )
    if not MIN_MEMORY_MIB <= mem_size_mib <= vm.mem_size_mib:
        raise Invalid(
            f"The guest of “{vm.name}” keeps {MIN_MEMORY_MIB} to {vm.mem_size_mib} MiB; "
            f"{mem_size_mib} were asked for.",
            hint="More memory than it was started with takes a stop: nexusctl vm update",
            code="memory-size",
        )
    require_idle(vm)
    return open_operation(
        "vm.balloon",
        f"Let VM {vm.name} keep {mem_size_mib} MiB",
        subject=vm,
        params={"vm": vm.ref, "mem_size_mib": mem_size_mib},
        deadline=timedelta(minutes=5),
    )


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


def _require_root_drive(vm: VM) -> None:
    if not vm.attachments.filter(is_root=True).exists():
        raise Conflict(
            f"The VM “{vm.name}” has no root drive.",
            hint=f"Attach one: nexusctl drive attach DRIVE {vm.name}",
            code="no-root-drive",
        )

"""Forks: VMs that go on from where another one is, or was."""

from __future__ import annotations

from itertools import count as numbers

from django.db import transaction

from drives import services as drive_services
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.ids import check_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.busy import require_idle
from vms.models import VM, Provisioning, VMSnapshot
from vms.services.provisioning import copy_provisioning
from vms.services.rules import require_memory
from vms.services.snapshots import (
    copy_attachments,
    delete_vm_snapshot,
    new_checkpoint,
    require_own,
    require_ready,
)
from vms.services.vms import new_name, new_vm
from vms.shape import Shape, shape_of

MAX_FORKS = 100
_LONGEST = 58  # characters of a name that gets a number


@transaction.atomic
def fork_vm(
    vm: VM,
    *,
    count: int = 1,
    name: str = "",
    snapshot: VMSnapshot | None = None,
    start: bool = True,
) -> Operation:
    """New VMs that go on from where ``vm`` is, or was at one of its checkpoints (``snapshot``).

    Each has its own name, MAC address and copies of all drives, and is told anew who it is
    before anything in it goes on. ``name`` is that of one fork; several get a number after it,
    or after the VM's name. One that is not started now goes on when it is.

    Raises ``Conflict`` unless the VM is ready, paused or suspended with an agent that is not too
    old, or for a snapshot without memory; ``Broken`` for a drive that cannot be copied.
    """
    if not 1 <= count <= MAX_FORKS:
        raise Invalid(f"There can be 1 to {MAX_FORKS} forks at once.", code="fork-count")
    _check_names(vm, name, count)
    require_idle(vm)
    takes = snapshot is None
    if snapshot is None:
        snapshot = _new_checkpoint(vm)
    else:
        _require_checkpoint(vm, snapshot)
    many = f"{count} times" if count > 1 else "once"
    return open_operation(
        "vm.fork",
        f"Fork VM {vm.name} {many}",
        subject=vm,
        params={
            "vm": vm.ref,
            "vm_snapshot": snapshot.ref,
            "snapshots": [part.ref for part in snapshot.drives.all()],
            "takes": takes,
            "count": count,
            "name": name,
            "start": start,
        },
    )


def _new_checkpoint(vm: VM) -> VMSnapshot:
    require_memory(vm, "A fork")
    for attachment in vm.attachments.select_related("drive"):
        drive_services.require_ready(attachment.drive)
        drive_services.require_file(attachment.drive)
    return new_checkpoint(vm, for_forks=True)


def _require_checkpoint(vm: VM, snapshot: VMSnapshot) -> None:
    require_own(vm, snapshot)
    require_ready(snapshot)
    if not snapshot.with_memory:
        raise Conflict(
            f"The snapshot “{snapshot.name}” has no memory to go on from.",
            hint=f"Make a VM that boots from it: nexusctl vm clone {vm.name} "
            f"--snapshot {snapshot.name}",
            code="no-memory",
        )
    for part in snapshot.drives.select_related("drive"):
        drive_services.require_ready(part)


def _check_names(vm: VM, name: str, count: int) -> None:
    if name and count == 1:
        new_name(name)
    elif name:
        check_name(f"{name}-{count}")


def new_forks(checkpoint: VMSnapshot, count: int, name: str = "") -> list[VM]:
    """The rows of forks and of their drives, whose storage is still to be made."""
    if name and count == 1:
        return [_new_fork(checkpoint, new_name(name))]
    base = (name or checkpoint.vm.name)[:_LONGEST].rstrip("-")
    taken = set(VM.objects.filter(name__startswith=base).values_list("name", flat=True))
    free = (f"{base}-{number}" for number in numbers(1) if f"{base}-{number}" not in taken)
    return [_new_fork(checkpoint, next(free)) for _ in range(count)]


def _new_fork(checkpoint: VMSnapshot, name: str) -> VM:
    vm = checkpoint.vm
    size = Shape(vcpu_count=checkpoint.vcpu_count, mem_size_mib=checkpoint.mem_size_mib)
    fork = new_vm(
        name,
        shape=shape_of(vm) | size,
        kernel=vm.kernel,
        reason=f"forked from {vm.name}, checkpoint {checkpoint.name}",
    )
    copy_attachments(fork, list(checkpoint.parts.all()))
    _copy_provisioning(vm, fork)
    fork.parent, fork.source_snapshot, fork.resume_from = vm, checkpoint, checkpoint
    fork.save(update_fields=["parent", "source_snapshot", "resume_from"])
    return fork


def _copy_provisioning(vm: VM, fork: VM) -> None:
    """It has been given all that already, unlike a clone, which boots."""
    copy_provisioning(vm, fork)
    was = Provisioning.objects.filter(vm=vm).first()
    if was is not None and was.script_drive is not None:
        root = fork.attachments.get(is_root=True)
        Provisioning.objects.filter(vm=fork).update(script_drive=root.drive_id)


def discard_spent_checkpoints() -> None:
    """Delete those that were taken for forks alone, once all of them have gone on."""
    spent = VMSnapshot.objects.filter(
        for_forks=True, state=VMSnapshot.State.READY, to_resume=None
    ).select_related("vm")
    for snapshot in spent:
        try:
            delete_vm_snapshot(snapshot)
        except Conflict:
            continue  # its VM is busy; it goes later

"""Snapshots of VMs: all drives at one instant; rolled back to, and cloned from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Unpack, cast

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive, Snapshot
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import check_name, free_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.busy import require_free, require_idle
from vms.models import VM, Attachment, SnapshotPart, VMSnapshot
from vms.services.provisioning import copy_provisioning
from vms.services.rules import open_rollback, require_memory, require_settled
from vms.services.upgrades import require_forkable
from vms.services.vms import new_name, new_vm
from vms.shape import Shape, checked, shape_of

MAX_BASE = 58  # characters of a name that may get a suffix


@transaction.atomic
def snapshot_vm(vm: VM, *, name: str = "") -> Operation:
    """Keep what all drives of a VM hold at one instant. One that runs stands still meanwhile,
    its file systems frozen if its agent can; the snapshot's ``consistency`` says whether.

    Raises ``Conflict`` while the VM is starting, stopping or busy, or for a name that is taken.
    """
    require_settled(vm)
    require_idle(vm)
    return _open_snapshot(_new_snapshot(vm, name), f"Snapshot VM {vm.name}")


@transaction.atomic
def checkpoint_vm(vm: VM, *, name: str = "") -> Operation:
    """The same with the VM's memory: VMs can go on from there. It goes on as it was.

    Raises ``Conflict`` as ``snapshot_vm`` does, unless the VM is ready, paused or suspended, and
    for an agent that is too old for that.
    """
    require_memory(vm, "A checkpoint")
    require_idle(vm)
    return _open_snapshot(new_checkpoint(vm, name), f"Checkpoint VM {vm.name}")


def new_checkpoint(vm: VM, name: str = "", *, for_forks: bool = False) -> VMSnapshot:
    """The rows of a new checkpoint of ``vm``, in the caller's transaction;
    ``checkpoints.take`` makes it. Raises ``Conflict`` for a name that is taken, and for an agent
    that is too old for VMs to go on from there."""
    require_forkable(vm)
    return _new_snapshot(vm, name, with_memory=True, for_forks=for_forks)


def _new_snapshot(vm: VM, name: str, **kind: bool) -> VMSnapshot:
    attachments = list(vm.attachments.select_related("drive"))
    if not attachments:
        raise Conflict(f"The VM “{vm.name}” has no drives.", code="no-drives")
    snapshot = VMSnapshot.objects.create(
        name=_free_snapshot_name(name),
        vm=vm,
        parent=vm.head,
        vcpu_count=vm.vcpu_count,
        mem_size_mib=vm.mem_size_mib,
        **kind,
    )
    for attachment in attachments:
        _add_part(snapshot, attachment)
    events.append("vm.snapshot_created", vm, snapshot=snapshot.ref, snapshot_name=snapshot.name)
    return snapshot


def _open_snapshot(snapshot: VMSnapshot, title: str) -> Operation:
    vm = snapshot.vm
    return open_operation(
        "vm.snapshot",
        title,
        subject=vm,
        params={
            "vm": vm.ref,
            "vm_snapshot": snapshot.ref,
            "snapshots": [part.ref for part in _parts(snapshot)],
            "memory": snapshot.with_memory,
        },
    )


def _add_part(snapshot: VMSnapshot, attachment: Attachment) -> Snapshot:
    drive = attachment.drive
    name = snapshot.name if attachment.is_root else f"{snapshot.name}-{drive.name}"
    part = drive_services.new_snapshot(drive, name=_base(name))
    SnapshotPart.objects.create(
        vm_snapshot=snapshot,
        snapshot=part,
        is_root=attachment.is_root,
        read_only=attachment.read_only,
    )
    return part


@transaction.atomic
def rename_vm_snapshot(snapshot: VMSnapshot, name: str) -> VMSnapshot:
    """Give a snapshot another name; its drives' snapshots keep theirs."""
    before, snapshot.name = snapshot.name, _free_snapshot_name(name, required=True)
    snapshot.save(update_fields=["name"])
    events.append(
        "vm.snapshot_renamed",
        snapshot.vm,
        snapshot=snapshot.ref,
        snapshot_name=snapshot.name,
        before=before,
    )
    return snapshot


@transaction.atomic
def delete_vm_snapshot(snapshot: VMSnapshot) -> Operation:
    """Delete a snapshot and those of its drives; clones of it stay, its children become its
    parent's. Raises ``Conflict`` while something works with it, or VMs are to go on from it."""
    vm = snapshot.vm
    require_free(vm)
    _require_nobody_goes_on(snapshot)
    for part in _parts(snapshot):
        drive_services.require_free(part.drive)
    deleting = VMSnapshot.objects.filter(pk=snapshot.pk, state=VMSnapshot.State.READY)
    if not deleting.update(state=VMSnapshot.State.DELETING):
        raise Conflict(
            f"The snapshot “{snapshot.name}” is {snapshot.state}.", code="vm-snapshot-busy"
        )
    return open_operation(
        "vm-snapshot.delete",
        f"Delete snapshot {snapshot.name} of VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "vm_snapshot": snapshot.ref},
    )


def _require_nobody_goes_on(snapshot: VMSnapshot) -> None:
    names = list(snapshot.to_resume.values_list("name", flat=True))
    if names:
        raise Conflict(
            f"VMs are to go on from “{snapshot.name}”: {', '.join(names[:20])}.",
            hint=f"Start them, or delete them: nexusctl vm start {names[0]}",
            code="vm-snapshot-needed",
            extra={"vms": names},
        )


@transaction.atomic
def rollback_vm(vm: VM, snapshot: VMSnapshot, *, stop: bool = False) -> Operation:
    """Give all drives of a VM what they held in one of its snapshots.

    A VM that runs is shut down before and started again after, as one operation, if ``stop``;
    else that is a ``Conflict``, as is a drive of the snapshot that is not in the VM any more.
    """
    require_own(vm, snapshot)
    require_ready(snapshot)
    parts = _parts(snapshot)
    there = set(vm.attachments.values_list("drive_id", flat=True))
    away = [part.drive.name for part in parts if part.drive_id not in there]
    if away:
        raise Conflict(
            f"Not all drives of “{snapshot.name}” are attached to the VM “{vm.name}” any more: "
            f"{', '.join(away)}.",
            hint="Attach them again, or make a VM of the snapshot: "
            f"nexusctl vm clone {vm.name} --snapshot {snapshot.name}",
            code="drive-not-attached",
            extra={"drives": away},
        )
    for part in parts:
        drive_services.require_ready(part)
    return open_rollback(
        "vm.rollback",
        f"Roll VM {vm.name} back to {snapshot.name}",
        subject=vm,
        params={"vm_snapshot": snapshot.ref},
        vm=vm,
        stop=stop,
    )


@transaction.atomic
def clone_vm(
    vm: VM,
    *,
    name: str = "",
    snapshot: VMSnapshot | None = None,
    start: bool = False,
    **shape: Unpack[Shape],
) -> Operation:
    """A new VM with copies of all drives, as they are now (at one instant) or in a snapshot.

    Its MAC address is its own, and so will its guest's hostname, machine ID and SSH host keys
    be. What is left out of its shape is as that of the VM; sizes as those of the snapshot. Its
    guest is given what that of the VM is given now.
    """
    if snapshot is not None:
        require_own(vm, snapshot)
        require_ready(snapshot)
    else:
        require_settled(vm)
        require_idle(vm)
    was = shape_of(vm)
    if snapshot is not None:
        was |= Shape(vcpu_count=snapshot.vcpu_count, mem_size_mib=snapshot.mem_size_mib)
    clone = new_vm(
        new_name(name),
        shape=checked(cast("Shape", {**was, **shape})),
        kernel=vm.kernel,
        reason=f"cloned from {vm.name}" + (f", snapshot {snapshot.name}" if snapshot else ""),
    )
    copy_provisioning(vm, clone)
    VM.objects.filter(pk=clone.pk).update(parent=vm, source_snapshot=snapshot)
    places = snapshot.parts.all() if snapshot else vm.attachments.all()
    drives = copy_attachments(clone, list(places))
    return open_operation(
        "vm.clone",
        f"Clone VM {vm.name} as {clone.name}",
        subject=clone,
        params={
            "vm": clone.ref,
            "source": vm.ref,
            "drives": [drive.ref for drive in drives],
            "start": start,
        },
    )


def copy_attachments(clone: VM, places: Sequence[Attachment | SnapshotPart]) -> list[Drive]:
    """Rows of new drives in ``clone``, for each place a drive has in a VM or in a snapshot."""
    if not places:
        raise Conflict("A VM without drives cannot be cloned.", code="no-drives")
    drives = []
    for place in places:
        source: Drive | Snapshot
        if isinstance(place, SnapshotPart):
            source, original = place.snapshot, place.snapshot.drive.name
        else:
            source, original = place.drive, place.drive.name
        name = clone.name if place.is_root else f"{clone.name}-{original}"
        drive = drive_services.clone_row(source, name=_base(name), delete_with_vm=True)
        Attachment.objects.create(
            vm=clone, drive=drive, is_root=place.is_root, read_only=place.read_only
        )
        events.append(
            "drive.attached", drive, vm=clone.ref, vm_name=clone.name, is_root=place.is_root
        )
        drives.append(drive)
    return drives


def _parts(snapshot: VMSnapshot) -> list[Snapshot]:
    return list(snapshot.drives.select_related("drive"))


def _base(name: str) -> str:
    return name[:MAX_BASE].rstrip("-")


def _free_snapshot_name(name: str, *, required: bool = False) -> str:
    """``name``, checked and free, or (unless it is ``required``) a generated one."""

    def taken(candidate: str) -> bool:
        return VMSnapshot.objects.filter(name=candidate).exists()

    if not name and not required:
        return free_name(taken)
    check_name(name)
    if taken(name):
        raise Conflict(
            f"There is a VM snapshot “{name}” already.",
            hint="Choose another name, or leave it out to get one.",
            code="name-taken",
        )
    return name


def require_own(vm: VM, snapshot: VMSnapshot) -> None:
    """Raise ``Conflict`` where the snapshot is another VM's."""
    if snapshot.vm_id != vm.pk:
        raise Conflict(
            f"“{snapshot.name}” is a snapshot of the VM “{snapshot.vm.name}”.",
            hint=f"Make a VM of it: nexusctl vm clone {snapshot.vm.name} "
            f"--snapshot {snapshot.name}",
            code="snapshot-of-another",
        )


def require_ready(snapshot: VMSnapshot) -> None:
    """Raise ``Conflict`` while it is being made or deleted."""
    if snapshot.state != VMSnapshot.State.READY:
        raise Conflict(
            f"The snapshot “{snapshot.name}” is {snapshot.state}.", code="vm-snapshot-busy"
        )

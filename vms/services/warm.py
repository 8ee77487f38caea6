"""The rules about warm templates: when one is made, of what, and when it goes.

One is wanted once an image has booted with nothing to resume from; it is made when the worker has
nothing else to do. People may ask for one at once. Each is a hidden VM with a checkpoint.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Coalesce

from drives import services as drive_services
from drives.models import Drive, Snapshot
from images.models import Image, Kernel
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation, open_operations
from vms import warm
from vms.capacity import MIB, host_capacity
from vms.models import VM, WarmTemplate
from vms.services.drives import attach_drive
from vms.services.vms import new_vm
from vms.shape import LIMITS, Shape, new_shape

MAKE, DELETE = "warm.make", "warm.delete"
RESERVE = 0.1  # of memory and disk that making one leaves to others
State = WarmTemplate.State


@dataclass(frozen=True)
class Prunable:
    """A warm template of which something is to go, and why; ``keeps_row``: it stays listed."""

    template: WarmTemplate
    why: str
    keeps_row: bool = False


# Making


@transaction.atomic
def want(vm: VM, fresh: warm.Fresh) -> None:
    """Have one made of what ``vm`` has booted, unless there is, or was to be, one like it."""
    facts = warm.facts(vm, fresh)
    if vm.image is not None and settings.NEXUS.warm_templates_most:
        WarmTemplate.objects.get_or_create(
            key=warm.key_of(facts),
            defaults={"facts": facts, "image": vm.image, "kernel": fresh.kernel},
        )


@transaction.atomic
def make_next(*, besides: Operation | None = None) -> Operation | None:
    """Begin to make the one that has been wanted longest, if there is nothing else to do.

    ``besides``: an operation that is about to end, and does not count.
    """
    others = open_operations()
    if besides is not None:
        others = others.exclude(pk=besides.parent_id or besides.pk)
    wanted = WarmTemplate.objects.filter(state=State.WANTED).exclude(image=None)
    template = wanted.select_related("image", "kernel").order_by("created_at").first()
    if not settings.NEXUS.warm_templates or template is None or others.exists():
        return None
    mem_size_mib = template.facts["mem_size_mib"]
    if _no_room(mem_size_mib):
        return None
    assert template.image is not None, "asked for"
    limits = dict(zip([name for name, *_ in LIMITS], template.facts["limits"], strict=True))
    shape = Shape(
        vcpu_count=template.facts["vcpu_count"],
        mem_size_mib=mem_size_mib,
        hypervisor=template.facts["hypervisor"],
        **limits,  # type: ignore[typeddict-item]
    )
    disk_bytes = template.facts["disk_bytes"]
    with events.acting(events.SYSTEM):
        operation = _open(template.image, template.kernel, shape, disk_bytes, template.ref)
    WarmTemplate.objects.filter(pk=template.pk).update(state=State.MAKING)
    return operation


@transaction.atomic
def make_warm_template(image: Image, shape: Shape | None = None) -> Operation:
    """Make one of an image now, for VMs of that shape with the default kernel; one that has
    failed is tried again. Raises ``Conflict`` without room, or where they are switched off."""
    if not settings.NEXUS.warm_templates:
        raise Conflict(
            "Warm templates are switched off on this server.",
            hint="Switch them on: NEXUS_WARM_TEMPLATES=1",
            code="warm-templates-off",
        )
    full = new_shape(shape or Shape())
    if lack := _no_room(full["mem_size_mib"]):
        raise Conflict(
            f"There is no room for a warm template of “{image.name}”: {lack}",
            hint="Stop a VM, or free some of the disk: nexusctl warm prune",
            code="no-room",
        )
    return _open(image, None, full, image.size_bytes)


def _no_room(mem_size_mib: int) -> str:
    """What the host lacks for one; empty: nothing."""
    host = host_capacity()
    memory = host.memory_available_mib - int(host.memory_mib * RESERVE)
    disk = (host.disk_free_bytes - int(host.disk_total_bytes * RESERVE)) // MIB
    if memory < mem_size_mib:
        return f"{mem_size_mib} MiB of memory are needed, {max(memory, 0)} can be spared."
    if disk < 2 * mem_size_mib:  # its memory, and what the guest may have written
        return f"{2 * mem_size_mib} MiB of the disk are needed, {max(disk, 0)} can be spared."
    return ""


def _open(
    image: Image, kernel: Kernel | None, shape: Shape, disk_bytes: int, template: str = ""
) -> Operation:
    """The rows of the VM that boots for it, and the operation that lets it."""
    name = f"warm-{image.name[:48]}-{secrets.token_hex(4)}"
    named = kernel if kernel is not None and not kernel.is_default else None
    vm = new_vm(name, shape=new_shape(shape), kernel=named, reason="made for a warm template")
    vm.purpose = VM.Purpose.WARM
    vm.save(update_fields=["purpose"])
    larger = -(-disk_bytes // MIB) if disk_bytes > image.size_bytes else None
    drive = drive_services.new_drive(image, name=name, size_mib=larger, delete_with_vm=True)
    attach_drive(vm, drive)
    return open_operation(
        MAKE,
        f"Make a warm template of {image.name}",
        subject=vm,
        params={"vm": vm.ref, "drive": drive.ref, "new_drive": True, "template": template},
    )


def disk_bytes(template: WarmTemplate) -> int | None:
    """What its VM's drive and that one's snapshot take on the disk; None while there are none."""
    checkpoint = template.checkpoint
    rows: list[Drive | Snapshot] = []
    for part in checkpoint.parts.all() if checkpoint else ():
        rows += [part.snapshot, part.snapshot.drive]
    usages = [usage for row in rows if (usage := drive_services.usage_of(row))]
    return sum(usage.used_bytes for usage in usages) if usages else None


# Deleting


@transaction.atomic
def delete_warm_template(template: WarmTemplate) -> Operation:
    """Delete one; VMs that went on from it run on. Raises ``Conflict`` while it is made."""
    _require_made(template)
    return _open_deletion(f"Delete the {template}", [Prunable(template, "asked for")])


@transaction.atomic
def prune_warm_templates() -> Operation:
    """Delete those of no use any more, and beyond the number that is kept those that were not
    used for longest; of those that have failed, all but the reason."""
    found = prunable()
    count = f"{len(found)} warm template{'' if len(found) == 1 else 's'}"
    return _open_deletion(f"Prune {count}", found)


def prune_if_needed() -> Operation | None:
    """The same, unless there is nothing to delete or that is under way."""
    under_way = open_operations().filter(kind=DELETE).exists()
    return prune_warm_templates() if not under_way and prunable() else None


def prunable() -> list[Prunable]:
    """What pruning would delete, and why."""
    rows = WarmTemplate.objects.select_related("image", "kernel", "vm", "checkpoint")
    by_use = rows.order_by(Coalesce("last_hit_at", "created_at").desc())
    most, found, kept = settings.NEXUS.warm_templates_most, [], 0
    for template in by_use:
        stale = warm.why_stale(template)
        if template.state == State.MAKING and is_being_made(template):
            continue
        if stale:
            found.append(Prunable(template, stale))
        elif template.state == State.MAKING:
            found.append(Prunable(template, "its making was interrupted"))
        elif template.state == State.FAILED and template.vm is not None:
            found.append(Prunable(template, "it is of no use", keeps_row=True))
        elif template.state == State.READY:
            kept += 1
            if kept > most:
                found.append(Prunable(template, f"others were used later, and {most} are kept"))
    return found


def is_being_made(template: WarmTemplate) -> bool:
    """Whether an operation makes it."""
    if template.vm is not None:
        return open_operations(template.vm).filter(kind=MAKE).exists()
    return open_operations().filter(kind=MAKE, params__template=template.ref).exists()


def _require_made(template: WarmTemplate) -> None:
    if template.state == State.MAKING and is_being_made(template):
        raise Conflict(
            f"The {template} is being made.",
            hint="Wait for its operation, or cancel that: nexusctl operation list",
            code="warm-template-busy",
        )


def _open_deletion(title: str, found: Sequence[Prunable]) -> Operation:
    going = [
        {"template": p.template.ref, "title": f"{p.template}: {p.why}", "keeps_row": p.keeps_row}
        for p in found
    ]
    return open_operation(DELETE, title, params={"going": going})

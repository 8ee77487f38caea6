"""The rules about pools: VMs that are ready before anybody asks for one.

The VMs of a pool have the purpose "pool" until somebody takes them. One without a pool is on its
way out. Each of these two ways to leave is one compare-and-swap on the VM's row, so of two callers
who want the same VM one gets it. ``vms.services.refilling`` keeps pools full.
"""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from builds import services as build_services
from builds.models import Template
from drives import services as drive_services
from drives.models import Drive
from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.ids import check_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.models import VM, Pool
from vms.services import refilling
from vms.services.vms import new_name
from vms.shape import Shape, new_shape
from vms.shortcuts import from_image
from vms.states import Desired, State
from vms.transitions import record_taking

TAKE = "pool.take"
MOST = 100  # VMs of one pool


@transaction.atomic
def create_pool(
    name: str,
    *,
    image: Image | None = None,
    template: Template | None = None,
    size: int = 1,
    shape: Shape | None = None,
) -> Pool:
    """A pool of ``size`` VMs of an image, or of whatever image a template's last build made.

    Raises ``Invalid``, and ``Conflict`` for a name that is taken or a template without an image.
    """
    if (image is None) == (template is None):
        raise Invalid("Give either an image or a template.", code="image-or-template")
    _require_free_name(name)
    _check_size(size)
    pool = Pool.objects.create(
        name=name,
        image=image or _current_image(template),
        template=template,
        size=size,
        shape=new_shape(shape or Shape()),
    )
    events.append("pool.created", pool, size=size)
    refilling.tend(pool)
    pool.refresh_from_db()
    return pool


@transaction.atomic
def update_pool(pool: Pool, *, name: str | None = None, size: int | None = None) -> Pool:
    """Rename or resize a pool; it tries again at once what it has failed to make."""
    if size is not None:
        _check_size(size)
        pool.size, pool.failures, pool.retry_at = size, 0, None
        pool.save(update_fields=["size", "failures", "retry_at"])
        events.append("pool.changed", pool, size=size)
    if name is not None and name != pool.name:
        _require_free_name(name)
        before, pool.name = pool.name, name
        pool.save(update_fields=["name"])
        events.append("pool.renamed", pool, before=before)
    refilling.tend(pool)
    pool.refresh_from_db()
    return pool


@transaction.atomic
def delete_pool(pool: Pool) -> Operation:
    """Delete a pool with the VMs that wait in it; those that were taken stay."""
    for operation in refilling.fillings(pool):
        refilling.give_up(operation)
    waiting = list(pool.vms.filter(purpose=VM.Purpose.POOL))
    going = [vm for vm in waiting if refilling.disown(vm)]
    operation = refilling.open_clearing(f"Delete pool {pool.name}", going, pool)
    events.append("pool.deleted", pool)
    pool.delete()
    return operation


@transaction.atomic
def take_vm(pool: Pool, *, name: str = "", or_start: bool = False) -> Operation:
    """Make a VM that waits in the pool somebody's: the operation's subject, which is ready.

    The operation tells the guest its name. Where none waits, ``or_start`` begins an ordinary
    start from the pool's image (``vm.from-image``); without it ``Conflict`` is raised.
    """
    name = new_name(name)
    vm = _take_one(pool, name)
    if vm is None:
        if not or_start:
            raise _empty(pool)
        return from_image("vm", pool.image, name=name, **pool.shape)
    _take_drives(vm, name)
    Pool.objects.filter(pk=pool.pk).update(taken=F("taken") + 1)
    operation = open_operation(
        TAKE,
        f"Take VM {name} from pool {pool.name}",
        subject=vm,
        params={"vm": vm.ref},
    )
    with events.acting(events.current_actor(), operation):
        record_taking(vm, pool.name)
    refilling.tend(pool)
    return operation


def require_no_pool(image: Image) -> None:
    """Raise ``Conflict`` naming the pools that make VMs of the image."""
    names = list(image.pools.values_list("name", flat=True))
    if names:
        raise Conflict(
            f"The image “{image.name}” is used by pools: {', '.join(names)}.",
            hint=f"Delete them first: nexusctl pool delete {names[0]}",
            code="image-used",
            extra={"pools": names},
        )


def _take_one(pool: Pool, name: str) -> VM | None:
    """The VM that has waited longest is ``name`` now, and in use."""
    usable = pool.vms.filter(
        purpose=VM.Purpose.POOL,
        state=State.READY,
        attachments__is_root=True,
        attachments__drive__image=pool.image_id,
    ).order_by("created_at")
    while (vm := usable.first()) is not None:
        mine = VM.objects.filter(
            pk=vm.pk, purpose=VM.Purpose.POOL, pool=pool, state=State.READY
        ).update(name=name, active_at=timezone.now(), **_in_use(pool))
        if mine:
            vm.refresh_from_db()
            return vm
    return None


def _in_use(pool: Pool) -> dict[str, Any]:
    policies = {field: pool.shape[field] for field in refilling.POLICIES}
    return {"purpose": VM.Purpose.USE, "desired_state": Desired.RUNNING, **policies}


def _take_drives(vm: VM, name: str) -> None:
    """Its drive is called as it is, as every VM's is that comes from an image."""
    for attachment in vm.attachments.select_related("drive"):
        if not Drive.objects.filter(name=name).exists():
            drive_services.rename_drive(attachment.drive, name)


def _empty(pool: Pool) -> Conflict:
    why = f" {pool.problem}" if pool.problem else ""
    return Conflict(
        f"No VM is ready in the pool “{pool.name}”.{why}",
        hint="Have one started in the ordinary way: --or-start (or_start: true)."
        if pool.size == 0
        else "Try again when it is refilled, or have one started in the ordinary way: --or-start "
        "(or_start: true).",
        code="pool-empty",
    )


def _current_image(template: Template | None) -> Image:
    assert template is not None, "given, where there is no image"
    image = build_services.current_image(template)
    if image is None:
        raise Conflict(
            f"The template “{template.name}” has not been built as it is now.",
            hint=f"Build it first: nexusctl build trigger {template.name}",
            code="template-not-built",
        )
    return image


def _require_free_name(name: str) -> None:
    check_name(name)
    if Pool.objects.filter(name=name).exists():
        raise Conflict(
            f"There is a pool “{name}” already.", hint="Choose another name.", code="name-taken"
        )


def _check_size(size: int) -> None:
    if not 0 <= size <= MOST:
        raise Invalid(
            f"A pool has 0 to {MOST} VMs; {size} were asked for.",
            code="pool-size",
            extra={"field": "size"},
        )

"""How pools are kept full: what of a pool is thrown away, and when it gets another VM.

``tend`` looks at one pool and opens the operation that brings it nearer to what it is to be: one
that makes a VM, one at a time, or one that deletes those of no use. The supervisor tends all of
them on its timer; whatever changes a pool tends it at once.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

from django.db import transaction
from django.db.models import Q, QuerySet
from django.utils import timezone

from builds import services as build_services
from drives import services as drive_services
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel, open_operation, open_operations
from vms.capacity import MIB, host_capacity
from vms.models import VM, Pool
from vms.services.drives import attach_drive
from vms.services.upgrades import agent_outdated
from vms.services.vms import new_vm
from vms.shape import USUAL, Shape, shape_in
from vms.states import State

log = logging.getLogger(__name__)

FILL, CLEAR = "pool.fill", "pool.clear"
#: What a VM does by itself, and begins to do when it is taken.
POLICIES = ("restart_policy", "unreachable_action", "idle_suspend_minutes")
RESERVE = 0.1  # of memory and disk that a new VM leaves to others
LOAD = 4.0  # for each processor; above that the host has enough to do
DRIVE_MIB = 512  # of the disk, for what a guest writes
FIRST, LONGEST = 5.0, 600.0  # seconds until it is tried again after a failure, and at most
AGAIN = timedelta(minutes=5)  # until what could not be deleted is tried again
CALM = timedelta(minutes=10)  # a pool without failures for so long begins to count anew


def tend_all() -> None:
    """Look at every pool, and at VMs that no pool has any more."""
    for pool in Pool.objects.all():
        try:
            tend(pool)
        except NexusError as error:
            log.warning("pool %s: %s", pool.name, error.text)
    _clear_orphans()


@transaction.atomic
def tend(pool: Pool, *, besides: Operation | None = None) -> None:
    """Throw away what is of no use, and begin to make what is missing, unless that is under way.

    ``besides``: a filling of the pool that has made its VM, and does not count any more.
    """
    row = Pool.objects.select_for_update(of=("self",)).filter(pk=pool.pk)
    found = row.select_related("image", "template").first()
    if found is None:
        return
    if besides is not None:
        _set_problem(found, "")
    _follow_template(found)
    under_way = [o for o in fillings(found) if besides is None or o.pk != besides.pk]
    kept = _keep_the_useful(found, {o.params["vm"] for o in under_way})
    if len(kept) >= found.size:
        for operation in under_way:
            give_up(operation)
    for vm in kept[: max(len(kept) - found.size, 0)]:
        disown(vm)
    _clear_orphans(found)
    if len(kept) >= found.size:
        _is_full(found)
    elif not under_way:
        _make_one(found)


def fillings(pool: Pool) -> QuerySet[Operation]:
    """What makes VMs for the pool now."""
    return open_operations().filter(kind=FILL, params__pool=pool.ref)


def give_up(filling: Operation) -> None:
    """Have it end, and delete its VM, unless it has ended or is about to."""
    if not filling.cancel_requested:
        with suppress(Conflict):
            cancel(filling)


def disown(vm: VM) -> bool:
    """Have a VM that waits go: nobody takes it any more. False where somebody just has."""
    waiting = VM.objects.filter(pk=vm.pk, purpose=VM.Purpose.POOL)
    return bool(waiting.update(pool=None))


def open_clearing(title: str, vms: Sequence[VM], pool: Pool | None = None) -> Operation:
    """The operation that deletes VMs which were disowned."""
    return open_operation(CLEAR, title, subject=pool, params={"vms": [vm.ref for vm in vms]})


def note_failure(pool: Pool, problem: str) -> None:
    """A VM of the pool came to nothing: the next is made later, and later with each failure."""
    failures = pool.failures + 1
    seconds = min(FIRST * 2.0 ** min(failures - 1, 30), LONGEST)
    retry_at = timezone.now() + timedelta(seconds=seconds)
    Pool.objects.filter(pk=pool.pk).update(failures=failures, retry_at=retry_at)
    pool.failures, pool.retry_at = failures, retry_at
    _set_problem(pool, problem)


def lack(pool: Pool) -> str:
    """What the host lacks for another VM of the pool; empty: nothing."""
    host, memory = host_capacity(), int(pool.shape["mem_size_mib"])
    if host.memory_available_mib - host.memory_mib * RESERVE < memory:
        return (
            f"Waits for memory: another VM needs {memory} MiB, and a tenth stays free for others."
        )
    if host.disk_free_bytes / MIB - host.disk_total_bytes / MIB * RESERVE < DRIVE_MIB:
        return f"Waits for room on the disk: {DRIVE_MIB} MiB, and a tenth stays free for others."
    if host.load_1m > host.cpus * LOAD:
        return "Waits until the host has less to do."
    return ""


def _follow_template(pool: Pool) -> None:
    """Its image is what its template's last build made, if the template was built as it is."""
    if pool.template is None:
        return
    try:
        image = build_services.current_image(pool.template)
    except NexusError as error:
        log.info("pool %s stays with its image: %s", pool.name, error.text)
        return
    if image is not None and image.pk != pool.image_id:
        pool.image = image
        pool.save(update_fields=["image"])
        events.append("pool.changed", pool, image=image.name)


def _keep_the_useful(pool: Pool, under_way: set[str]) -> list[VM]:
    """The VMs that are ready and as they are to be, newest first; others but those ``under_way``
    are disowned. One that has ended or does not answer counts as a failure."""
    kept: list[VM] = []
    trouble = ""
    rows = pool.vms.filter(purpose=VM.Purpose.POOL).order_by("-created_at")
    for vm in rows.prefetch_related("attachments__drive__image"):
        if vm.ref in under_way:
            continue
        if vm.state == State.READY and _is_current(pool, vm):
            kept.append(vm)
            continue
        last = vm.history.last()
        if disown(vm) and vm.state != State.READY:
            trouble = f"The VM {vm.name} is {vm.state}: {last.reason if last else ''}"
    if trouble:
        note_failure(pool, trouble)
    return kept


def _is_current(pool: Pool, vm: VM) -> bool:
    return vm.image is not None and vm.image.pk == pool.image_id and not agent_outdated(vm)


def _clear_orphans(pool: Pool | None = None) -> None:
    """Have VMs deleted that no pool has any more, unless something works on them, or they could
    not be deleted a moment ago."""
    rows = VM.objects.filter(purpose=VM.Purpose.POOL, pool=None)
    if not rows.exists():
        return
    clearings = Operation.objects.filter(kind=CLEAR)
    late = Q(state=Operation.State.FAILED, ended_at__gt=timezone.now() - AGAIN)
    now = clearings.filter(late | Q(ended_at=None))
    going = {ref for operation in now for ref in operation.params["vms"]}
    free = [vm for vm in rows if vm.ref not in going and not open_operations(vm).exists()]
    if free:
        what = f"Delete {len(free)} VM{'s' if len(free) > 1 else ''} that no pool needs"
        open_clearing(what, free, pool)


def _make_one(pool: Pool) -> None:
    if pool.retry_at is not None and pool.retry_at > timezone.now():
        return
    if problem := lack(pool):
        _set_problem(pool, problem)
        return
    try:
        with transaction.atomic():
            _open_filling(pool)
    except NexusError as error:
        note_failure(pool, error.text)


def _open_filling(pool: Pool) -> None:
    """The rows of another VM, and the operation that starts it."""
    name = f"pool-{pool.name[:48]}-{secrets.token_hex(4)}"
    vm = new_vm(name, shape=_waiting_shape(pool), reason=f"made for the pool {pool.name}")
    vm.purpose, vm.pool = VM.Purpose.POOL, pool
    vm.save(update_fields=["purpose", "pool"])
    drive = drive_services.new_drive(pool.image, name=name, delete_with_vm=True)
    attach_drive(vm, drive)
    params = {"pool": pool.ref, "vm": vm.ref, "drive": drive.ref, "new_drive": True, "start": True}
    with events.acting(events.SYSTEM):
        open_operation(FILL, f"Make a VM for pool {pool.name}", subject=vm, params=params)


def _waiting_shape(pool: Pool) -> Shape:
    """As its VMs are to be, but left alone while they wait."""
    usual = {field: USUAL[field] for field in POLICIES}  # type: ignore[literal-required]
    return shape_in(pool.shape | usual)


def _is_full(pool: Pool) -> None:
    _set_problem(pool, "")
    if pool.failures and (pool.retry_at is None or pool.retry_at < timezone.now() - CALM):
        Pool.objects.filter(pk=pool.pk).update(failures=0, retry_at=None)


def _set_problem(pool: Pool, problem: str) -> None:
    if pool.problem != problem:
        pool.problem = problem
        pool.save(update_fields=["problem"])
        events.append("pool.changed", pool, problem=problem)

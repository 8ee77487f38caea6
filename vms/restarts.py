"""Restart policies: when a VM that has ended unasked is started again.

What ends is recorded by ``outcomes``, which has the next start planned here, in the same
transaction. The plan is in the VM's row, so it outlives Nexus; the supervisor has
``services.start_due`` carry out what is due. A person's start, stop or deletion cancels it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from django.db import transaction
from django.db.models import F
from django.utils import timezone

from nexus_site.core import events
from nexus_site.core.errors import NexusError
from nexus_site.core.steps import Cancelled
from vms import supervision
from vms.models import VM
from vms.states import AT_REST, Desired, State

FIRST, LONGEST = 1.0, 300.0  # seconds until the first restart, and at most until a later one
SETTLED = timedelta(minutes=10)  # a VM that was ready for so long begins to count anew

_COVERED: dict[str, frozenset[State]] = {
    VM.RestartPolicy.NO: frozenset(),
    VM.RestartPolicy.ON_FAILURE: frozenset({State.CRASHED, State.FAILED}),
    VM.RestartPolicy.ALWAYS: frozenset({State.CRASHED, State.FAILED, State.STOPPED}),
}


def pause(restarts: int) -> float:
    """Seconds until the restart after so many in a row: 1, 2, 4, … up to five minutes."""
    return float(min(FIRST * 2.0 ** min(restarts, 30), LONGEST))


def plan(vm: VM, error: NexusError | None = None) -> None:
    """The VM has ended unasked (a start failed with ``error``): plan its next start, if its
    policy has one. A start that somebody cancelled is none that failed."""
    vm.refresh_from_db(fields=["state", "desired_state", "restart_policy", "restarts"])
    if not _is_covered(vm) or isinstance(error, Cancelled):
        return
    seconds = pause(vm.restarts)
    _write(vm, timezone.now() + timedelta(seconds=seconds), vm.restarts)
    attempt = vm.restarts + 1
    events.append("vm.restart_planned", vm, attempt=attempt, seconds=seconds)
    transaction.on_commit(supervision.wake)


def plan_after_stop(vm: VM) -> None:
    """The same for a VM that is ``stopped``: only if its guest has switched itself off."""
    last = vm.history.filter(to_state=State.STOPPING).last()
    if last is not None and last.operation_id is None:  # else somebody's operation stopped it
        plan(vm)


def cancel(vm: VM, restarts: int = 0) -> None:
    """Plan nothing any more; ``restarts``: how many there were in a row."""
    planned = vm.restart_at is not None
    if planned or vm.restarts != restarts:
        _write(vm, None, restarts)
    if planned:
        events.append("vm.restart_cancelled", vm)


def begin(vm: VM, restarts: int) -> None:
    """The VM is being started, after so many restarts in a row by its policy (0: by a person)."""
    _write(vm, None, restarts)


def put_off(vm: VM) -> None:
    """What was planned could not even begin: that counts, and the next one is later."""
    VM.objects.filter(pk=vm.pk).update(restarts=F("restarts") + 1)
    plan(vm)


def reconsider(vm: VM) -> None:
    """Cancel what the policy does not cover any more."""
    if vm.restart_at is not None and not _is_covered(vm):
        cancel(vm)


def due() -> list[VM]:
    """The VMs that are to be started now. What no policy covers any more is cancelled."""
    rows = VM.objects.filter(restart_at__lte=timezone.now(), state__in=AT_REST)
    found = list(rows.order_by("restart_at"))
    for vm in found:
        reconsider(vm)
    return [vm for vm in found if vm.restart_at is not None]


def seconds_to_next() -> float | None:
    """Until the next start is due, 0 for one that is overdue; None where none is planned."""
    rows = VM.objects.filter(restart_at__isnull=False, state__in=AT_REST)
    first = rows.order_by("restart_at").values_list("restart_at", flat=True).first()
    return max((first - timezone.now()).total_seconds(), 0.0) if first else None


def forget_old_counts() -> None:
    """VMs that have been ready for long begin to count anew."""
    long_ready = VM.objects.filter(state=State.READY, state_since__lte=timezone.now() - SETTLED)
    long_ready.filter(restarts__gt=0).update(restarts=0)


def _is_covered(vm: VM) -> bool:
    wanted = vm.desired_state == Desired.RUNNING
    return wanted and vm.state in _COVERED[vm.restart_policy]


def _write(vm: VM, at: datetime | None, restarts: int) -> None:
    vm.restart_at, vm.restarts = at, restarts
    VM.objects.filter(pk=vm.pk).update(restart_at=at, restarts=restarts)

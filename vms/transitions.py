"""The one way to change a VM's state."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.utils import timezone

from nexus_site.core import events
from nexus_site.core.errors import Conflict, NotFound
from vms import supervision
from vms.models import VM, Transition
from vms.states import MOVES, State


class IllegalMove(Conflict):
    """The table of moves has no such move from where the VM is."""


def record_creation(vm: VM, reason: str) -> None:
    """The first line of a VM's history: it has been made."""
    Transition.objects.create(
        vm=vm,
        to_state=State.CREATED,
        reason=reason,
        actor=events.current_actor(),
        operation_id=events.current_operation(),
    )
    events.append("vm.created", vm, reason=reason)


def record_taking(vm: VM, pool: str) -> None:
    """A line of a VM's history that is no move: somebody has it from now on."""
    Transition.objects.create(
        vm=vm,
        from_state=vm.state,
        to_state=vm.state,
        reason=f"taken from pool {pool}",
        actor=events.current_actor(),
        operation_id=events.current_operation(),
    )
    events.append("vm.taken", vm, pool=pool)


def move(
    vm: VM,
    to: State,
    reason: str,
    *,
    detail: dict[str, Any] | None = None,
    only_from: frozenset[State] | None = None,
) -> Transition:
    """Move ``vm`` to ``to``; history and event are written in the same transaction.

    A compare-and-swap on the row: of two callers one wins, the other gets ``IllegalMove``.
    ``only_from`` narrows what the table allows. ``vm`` is brought up to date.
    """
    allowed = MOVES.get(to, frozenset())
    allowed = allowed & only_from if only_from else allowed
    with transaction.atomic():
        while True:
            current = VM.objects.filter(pk=vm.pk).values_list("state", flat=True).first()
            if current is None:
                raise NotFound(f"The VM “{vm.name}” is gone.", code="vm-not-found")
            if State(current) not in allowed:
                raise IllegalMove(
                    f"The VM “{vm.name}” is {current}; it cannot become {to.value} from there.",
                    code="illegal-move",
                )
            now = timezone.now()
            swapped = VM.objects.filter(pk=vm.pk, state=current)
            if swapped.update(state=to, state_since=now):
                break
        vm.state, vm.state_since = to, now
        row = Transition.objects.create(
            vm=vm,
            at=now,
            from_state=current,
            to_state=to,
            reason=reason[:300],
            actor=events.current_actor(),
            operation_id=events.current_operation(),
            detail=detail or {},
        )
        events.append("vm.moved", vm, **{"from": current, "to": to.value, "reason": row.reason})
        transaction.on_commit(supervision.announce_move)
    return row


def try_move(vm: VM, to: State, reason: str, **more: Any) -> Transition | None:
    """``move`` for callers to whom losing the race is no error."""
    try:
        return move(vm, to, reason, **more)
    except (IllegalMove, NotFound):
        return None

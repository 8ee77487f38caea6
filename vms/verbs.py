"""Which verbs a VM takes now, and why not the others: for buttons that explain themselves."""

from __future__ import annotations

from vms.models import VM, VMSnapshot
from vms.services.upgrades import fork_problem
from vms.states import ALIVE, AT_REST, WITH_VMM, State

_STOPPABLE = ALIVE | {State.STARTING, State.SUSPENDED}
_MEMORY = frozenset({State.READY, State.PAUSED, State.SUSPENDED})
#: From which states, in words too.
_FROM: dict[str, tuple[frozenset[State], str]] = {
    "pause": (frozenset({State.READY}), "a ready"),
    "unpause": (frozenset({State.PAUSED}), "a paused"),
    "suspend": (frozenset({State.READY, State.PAUSED}), "a ready or paused"),
    "resume": (frozenset({State.SUSPENDED}), "a suspended"),
    "checkpoint": (_MEMORY, "a ready, paused or suspended"),
    "fork": (_MEMORY, "a ready, paused or suspended"),
}


def why_not(vm: VM, verb: str) -> str:
    """Why ``verb`` (start, stop, force, restart, copy, pause, unpause, suspend, resume, checkpoint,
    fork) cannot be done now; empty when it can. ``copy`` is a snapshot or a clone. The services
    have the last word; this only spares people a refusal.
    """
    if verb in _FROM:
        return _why_not_from(vm, verb)
    if verb == "start":
        if vm.state not in AT_REST:
            return f"It is {vm.state}; only a VM at rest can be started."
        return "" if vm.image else "It has no root drive; attach one first."
    if verb == "stop" and vm.state not in _STOPPABLE and vm.restart_at is None:
        return f"It is {vm.state}; there is nothing to stop."
    if verb == "force" and vm.state not in WITH_VMM:
        return f"It is {vm.state}; there is nothing to kill."
    if verb == "restart" and vm.state not in ALIVE:
        return f"It is {vm.state}; only a running VM can be restarted."
    if verb == "copy":
        if not vm.attachments.all():
            return "It has no drive."
        if vm.state in (State.STARTING, State.STOPPING):
            return f"It is {vm.state}; wait until it runs or is at rest."
    return ""


def _why_not_from(vm: VM, verb: str) -> str:
    states, who = _FROM[verb]
    if vm.state not in states:
        return f"It is {vm.state}; only {who} VM can be."
    return fork_problem(vm) if verb in ("checkpoint", "fork") else ""


def why_not_snapshot(snapshot: VMSnapshot) -> str:
    """Why a snapshot cannot be gone back to or cloned now; empty when it can."""
    return "" if snapshot.state == VMSnapshot.State.READY else f"It is {snapshot.state}."

"""Which verbs a VM takes now, and why not the others: for buttons that explain themselves."""

from __future__ import annotations

from vms.models import VM, VMSnapshot
from vms.states import ALIVE, AT_REST, WITH_VMM, State


def why_not(vm: VM, verb: str) -> str:
    """Why ``verb`` (start, stop, force, restart, copy) cannot be done now; empty
    when it can. ``copy`` is a snapshot or a clone. The services have the last word; this only
    spares people a refusal.
    """
    if verb == "start":
        if vm.state not in AT_REST:
            return f"It is {vm.state}; only a VM at rest can be started."
        return "" if vm.image else "It has no root drive; attach one first."
    if verb == "stop" and vm.state not in ALIVE | {State.STARTING} and vm.restart_at is None:
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


def why_not_snapshot(snapshot: VMSnapshot) -> str:
    """Why a snapshot cannot be gone back to or cloned now; empty when it can."""
    return "" if snapshot.state == VMSnapshot.State.READY else f"It is {snapshot.state}."

"""What several services of VMs ask and do."""

from __future__ import annotations

from drives.models import Drive
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Retryable
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.busy import require_free
from vms.models import VM
from vms.states import ALIVE, AT_REST, TRANSIENT, Desired, State
from vms.transitions import move

HELD = "vm-held"  # the VM stands still for a moment: whoever waits will be able to ask it


def wish(vm: VM, desired: Desired) -> None:
    """Record what people want of the VM."""
    VM.objects.filter(pk=vm.pk).update(desired_state=desired)
    vm.desired_state = desired


def require_rest(vm: VM, what: str, whose: str = "a VM") -> None:
    """Raise ``Conflict`` unless the VM is at rest: "only ``whose`` at rest can ``what``"; and
    while there is a memory that it is to go on from, which fits nothing but what is there now."""
    require_no_memory(vm, what)
    if vm.state not in AT_REST:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only {whose} at rest can {what}.",
            hint=f"Stop it first: nexusctl vm stop {vm.name}",
            code="vm-runs",
        )


def require_no_memory(vm: VM, what: str) -> None:
    """Raise ``Conflict`` for a VM whose next start goes on from a saved memory."""
    if vm.state == State.SUSPENDED:
        raise Conflict(
            f"The VM “{vm.name}” is suspended: its memory fits only what it has now.",
            hint=f"Before it can {what}, resume it (nexusctl vm resume {vm.name}), or give its "
            f"memory up (nexusctl vm stop {vm.name}).",
            code="vm-suspended",
        )
    if vm.resume_from_id is not None and vm.state in AT_REST:
        raise Conflict(
            f"The VM “{vm.name}” is to go on from a checkpoint, which fits only what it has now.",
            hint=f"Before it can {what}, start it: nexusctl vm start {vm.name}",
            code="vm-suspended",
        )


def require_settled(vm: VM) -> None:
    """Raise ``Conflict`` while the VM is starting or stopping."""
    if vm.state in TRANSIENT:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}.",
            hint="Try again when it has come to rest or runs.",
            code="vm-busy",
        )


def require_memory(vm: VM, what: str) -> None:
    """Raise ``Conflict`` unless the VM is ready, paused or suspended: ``what`` needs a memory
    that Nexus knows to be in order."""
    if vm.state not in (State.READY, State.PAUSED, State.SUSPENDED):
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}. {what} is made of one that is ready, paused or "
            "suspended.",
            hint=f"See how it is: nexusctl vm inspect {vm.name}",
            code="vm-not-ready",
        )


def require_ready(vm: VM) -> None:
    """Raise unless the VM is ready: ``Retryable`` if it will be by itself, else ``Conflict``."""
    text = f"The VM “{vm.name}” is {vm.state}: there is no agent to ask."
    match vm.state:
        case State.READY:
            return
        case State.STARTING | State.RUNNING | State.UNREACHABLE:
            hint = "Try again when it is ready; the console shows how far it is: nexusctl vm logs"
            raise Retryable(text, hint=f"{hint} {vm.name}", code="vm-not-ready")
        case State.PAUSED if vm.desired_state != Desired.PAUSED:
            hint = "It stands still for a moment. Try again."
            raise Retryable(text, hint=hint, code=HELD)
        case State.PAUSED:
            hint = f"Let it go on: nexusctl vm unpause {vm.name}"
            raise Conflict(text, hint=hint, code="vm-paused")
        case State.SUSPENDED:
            hint = f"Resume it: nexusctl vm resume {vm.name}"
            raise Conflict(text, hint=hint, code="vm-suspended")
        case State.STOPPING:
            raise Conflict(text, code="vm-not-ready")
    raise Conflict(text, hint=f"Start it: nexusctl vm start {vm.name}", code="vm-not-ready")


def open_rollback(
    kind: str,
    title: str,
    *,
    subject: VM | Drive,
    params: dict[str, str],
    vm: VM | None,
    stop: bool,
) -> Operation:
    """The operation that sets drives of ``vm`` back; it is shut down and started again around
    that if it runs and ``stop`` allows it, else ``Conflict``."""
    restarts = vm is not None and vm.state in ALIVE and stop
    if vm is not None:
        require_free(vm)
        require_no_memory(vm, "be rolled back")
        if not restarts:
            _require_still(vm)
    operation = open_operation(
        kind,
        title,
        subject=subject,
        params=params | {"vm": vm.ref if vm else "", "restarts": restarts, "force": False},
    )
    if vm is not None and restarts:
        wish(vm, Desired.RUNNING)
        with events.acting(events.current_actor(), operation):
            move(vm, State.STOPPING, "rollback requested")
    return operation


def _require_still(vm: VM) -> None:
    if vm.state not in AT_REST:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; drives are rolled back while it is at rest.",
            hint="Stop it first, or have it stopped and started again: --stop (stop: true).",
            code="vm-runs",
        )

"""What it takes to pause a VM, to let it go on, and to suspend it: the lists of steps.

What people want of the VM is written down together with what it is by then: a worker that is
killed in between leaves a VM that is held, and lets go or held on.
"""

from __future__ import annotations

import time
from typing import Any

from django.db import transaction
from django.utils import timezone

from guest_agent.clock import set_clock
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.models import Operation
from nexus_site.core.steps import Cancelled, Plan, Run, Step
from vms import live_drives, outcomes, saved_memory, supervision
from vms.drivers import driver_of
from vms.lifecycle import vm_of
from vms.models import VM
from vms.paths import suspended_memory
from vms.services.rules import wish
from vms.states import Desired, State
from vms.transitions import move

BY_REQUEST, WHEN_IDLE = "request", "idle"  # why a VM was suspended


def pause_plan(operation: Operation) -> Plan:
    return [Step("pause", "Stop its CPUs", pause, done=is_paused)]


def unpause_plan(operation: Operation) -> Plan:
    return [Step("unpause", "Let its CPUs run", unpause)]


def suspend_plan(operation: Operation) -> Plan:
    return [
        Step("save", "Save the memory", save, done=is_saved, keeps=True),
        Step("end", "End the VMM", end),
    ]


# Pausing


def is_paused(run: Run) -> str | None:
    return "it is paused already" if live_drives.is_paused(vm_of(run)) else None


def pause(run: Run) -> None:
    vm = vm_of(run)
    with live_drives.alone_with(vm, run):
        vm.refresh_from_db()
        handle = live_drives.running(vm)
        live_drives.note_paused(vm, True)  # its agent is not silent, it cannot answer
        try:
            driver_of(vm).pause(handle)
            with transaction.atomic():
                wish(vm, Desired.PAUSED)
                move(vm, State.PAUSED, "pause requested")
        except BaseException:
            live_drives.go_on(vm, handle, "it could not be paused")
            raise


def unpause(run: Run) -> str | None:
    vm = vm_of(run)
    with live_drives.alone_with(vm, run):
        vm.refresh_from_db()
        if not live_drives.is_paused(vm):
            return f"it is {vm.state}"
        driver_of(vm).resume(live_drives.running(vm))
        with transaction.atomic():
            wish(vm, Desired.RUNNING)
            move(vm, State.READY, "it was to go on")
        live_drives.note_paused(vm, False)
    return _set_clock(vm)


def _set_clock(vm: VM) -> str | None:
    """It has stood still; heartbeats would find that out only a moment later."""
    try:
        supervision.with_agent(vm, set_clock)
    except NexusError as error:
        return f"its clock was not set yet: {error.text}"
    return None


# Suspending


def is_saved(run: Run) -> str | None:
    return "it is saved" if vm_of(run).state == State.SUSPENDED else None


def save(run: Run) -> str:
    """Save the memory beside the drives, which nothing changes from then on; the VMM ends.

    Where that fails, the VM is what it was, and no memory is left.
    """
    vm = vm_of(run)
    drives = [a.drive for a in vm.attachments.select_related("drive")]
    with live_drives.hold(drives, run, with_memory=True) as held:
        vm.refresh_from_db()
        handle = live_drives.running(vm)
        _require_still_idle(vm, run)
        began = time.monotonic()
        with saved_memory.being_made(suspended_memory(vm)) as made:
            saved_memory.save(vm, handle, made)
            known = {
                "saved_at": timezone.now().isoformat(),
                "bytes": saved_memory.disk_bytes(made),
                "reason": run.params["reason"],
                "seconds": round(time.monotonic() - began, 3),
                **saved_memory.saved_by(vm, handle),
            }
            _record(vm, known, run.params["words"])
        held.goes_on = False
        _put_away(vm)
    return f"{known['bytes'] / (1 << 20):.0f} MiB in {known['seconds']:.1f} s"


def _require_still_idle(vm: VM, run: Run) -> None:
    """A VM that was to be suspended because it was idle goes on if somebody has used it since:
    what they began would be cut off. Nobody begins anything in one that is held."""
    minutes = vm.idle_suspend_minutes or 0
    if run.params["reason"] == WHEN_IDLE and supervision.quiet_seconds(vm) < minutes * 60:
        raise Cancelled("Somebody uses it.", code="vm-in-use")


@transaction.atomic
def _record(vm: VM, known: dict[str, Any], words: str) -> None:
    """From here on the memory is the VM's, under its final name or not yet."""
    VM.objects.filter(pk=vm.pk).update(saved_memory=known)
    vm.saved_memory = known
    wish(vm, Desired.SUSPENDED)
    detail = {"memory_bytes": known["bytes"], "seconds": known["seconds"]}
    move(vm, State.SUSPENDED, words, detail=detail)


def end(run: Run) -> str | None:
    """After an interruption: what is left to do."""
    vm = vm_of(run)
    if vm.state != State.SUSPENDED:
        return f"it is {vm.state}"
    with live_drives.alone_with(vm, run):
        _put_away(vm)
    return None


def _put_away(vm: VM) -> None:
    """The memory under its name, and nothing of the VMM; safe to repeat."""
    saved_memory.finish(suspended_memory(vm))
    live_drives.note_paused(vm, False)
    outcomes.vmm_ended(vm, outcomes.end_vmm(vm))


def require_suspendable(vm: VM) -> None:
    """Raise ``Conflict`` unless the VM is ready, or somebody has paused it."""
    if vm.state == State.READY or live_drives.is_paused(vm):
        return
    raise Conflict(
        f"The VM “{vm.name}” is {vm.state}; only one that is ready or paused can be suspended.",
        hint="" if vm.state == State.SUSPENDED else f"See how it is: nexusctl vm inspect {vm.name}",
        code="vm-not-ready",
    )

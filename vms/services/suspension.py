"""VMs that stand still: paused, or suspended to the disk; and how they go on."""

from __future__ import annotations

import asyncio
import time
from datetime import timedelta

from channels.db import database_sync_to_async
from django.conf import settings
from django.db import models, transaction

from nexus_site.core.errors import Conflict, Retryable
from nexus_site.core.ids import decode, is_id, resolve
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.prepared import Prepared
from vms import restarts
from vms.busy import require_free, require_idle
from vms.live_drives import is_paused
from vms.models import VM
from vms.services.rules import HELD, require_ready
from vms.services.vms import start_vm
from vms.states import State
from vms.suspending import BY_REQUEST, WHEN_IDLE, require_suspendable

LOOK = 0.05  # seconds between two looks at whether a VM is held


@transaction.atomic
def pause_vm(vm: VM) -> Operation:
    """Stop the CPUs of a VM that is ready, until somebody lets it go on; its memory stays where
    it is. Raises ``Conflict`` for any other."""
    if vm.state != State.READY:
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only one that is ready can be paused.",
            hint=f"See how it is: nexusctl vm inspect {vm.name}",
            code="vm-not-ready",
        )
    require_idle(vm)
    return open_operation("vm.pause", f"Pause VM {vm.name}", subject=vm, params={"vm": vm.ref})


@transaction.atomic
def unpause_vm(vm: VM) -> Operation:
    """Let a VM go on that somebody has paused. Raises ``Conflict`` for any other."""
    if not is_paused(vm):
        hint = f"Resume it: nexusctl vm resume {vm.name}" if vm.state == State.SUSPENDED else ""
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; nobody has paused it.",
            hint=hint,
            code="vm-not-paused",
        )
    require_idle(vm)
    return open_operation("vm.unpause", f"Unpause VM {vm.name}", subject=vm, params={"vm": vm.ref})


@transaction.atomic
def suspend_vm(
    vm: VM, *, reason: str = BY_REQUEST, words: str = "suspension requested"
) -> Operation:
    """Save the memory of a VM that is ready or paused to the disk, and end its VMM: its share of
    the host is free. It goes on from there when it is resumed, also after a restart of the host.

    Raises ``Conflict`` for any other, or while something works on it.
    """
    require_suspendable(vm)
    require_free(vm)
    restarts.cancel(vm)
    return open_operation(
        "vm.suspend",
        f"Suspend VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref, "reason": reason, "words": words},
        deadline=timedelta(hours=1),
    )


@transaction.atomic
def resume_vm(vm: VM, *, cold: bool = False, reason: str = "resume requested") -> Operation:
    """Let a suspended VM go on. ``cold``: its guest boots, and its memory is given up."""
    if vm.state != State.SUSPENDED:
        hint = f"Let it go on: nexusctl vm unpause {vm.name}" if is_paused(vm) else ""
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only a suspended one can be resumed.",
            hint=hint,
            code="vm-not-suspended",
        )
    return start_vm(vm, cold=cold, reason=reason)


def ready_vm(ref: str, *, wake: bool = True) -> VM:
    """The VM called ``ref``, whose agent may be asked now; one that has suspended itself because
    it was idle wakes, and whoever asks its agent waits for that. This waits for one that stands
    still for a moment: it is being suspended, copied or forked.

    Raises ``NotFound``, and ``Conflict`` or ``Retryable`` where the VM is not ready. Without
    ``wake`` one that has suspended itself is a ``Conflict`` (code "vm-asleep").
    """
    until = _patience()
    while True:
        try:
            return _ready_now(ref, wake=wake)
        except Retryable as error:
            _wait_or_raise(error, until)
        time.sleep(LOOK)


async def reach_vm(ref: str, *, wake: bool = True) -> VM:
    """``ready_vm`` for what all websockets share one thread for: none waits in it."""
    until = _patience()
    while True:
        try:
            vm: VM = await database_sync_to_async(_ready_now)(ref, wake=wake)
            return vm
        except Retryable as error:
            _wait_or_raise(error, until)
        await asyncio.sleep(LOOK)


def _patience() -> float:
    return time.monotonic() + settings.NEXUS.agent_ready_timeout


def _wait_or_raise(error: Retryable, until: float) -> None:
    if error.code != HELD or time.monotonic() >= until:
        raise error


def _ready_now(ref: str, *, wake: bool) -> VM:
    vm = _asked(ref)
    if vm.state == State.READY:
        return vm
    if is_asleep(vm):
        if not wake:
            raise Conflict(
                f"The VM “{vm.name}” has suspended itself, since nothing was done in it.",
                hint=f"Wake it: nexusctl vm resume {vm.name}",
                code="vm-asleep",
            )
        wake_vm(vm)
    elif not is_waking(vm):
        require_ready(vm)
    return vm


def _asked(ref: str) -> VM:
    """The VM with no more than `ready_vm` and its callers ask."""
    vm = _BY_ID.find(int(decode(ref))) if is_id(ref) else _BY_NAME.find(ref.lower())
    return vm or resolve(_asked_rows(), ref)


def _asked_rows() -> models.QuerySet[VM]:
    return VM.objects.shown().only("name", "state", "saved_memory")


_BY_ID = Prepared(_asked_rows, "pk", 1)
_BY_NAME = Prepared(_asked_rows, "name", "")


def is_asleep(vm: VM) -> bool:
    """Whether the VM has suspended itself, and wakes for whoever needs it."""
    return vm.state == State.SUSPENDED and vm.saved_memory.get("reason") == WHEN_IDLE


def wake_vm(vm: VM) -> None:
    """Let a VM go on that suspended itself; of several that want that at once, one does it.
    Raises ``Retryable`` while it is still being suspended."""
    try:
        resume_vm(vm, reason="woken: somebody asked its agent")
    except Conflict as error:
        vm.refresh_from_db()
        if vm.state == State.READY or is_waking(vm):
            return  # somebody else has woken it
        if vm.state != State.SUSPENDED or error.code != "vm-busy":
            raise
        text = f"The VM “{vm.name}” has just been suspended, and cannot wake yet."
        raise Retryable(text, hint="Try again.", code=HELD) from error


def is_waking(vm: VM) -> bool:
    """Whether a VM that was suspended is about to be ready."""
    state = VM.objects.filter(pk=vm.pk).values_list("state", flat=True).first()
    if state not in (State.STARTING, State.RUNNING):
        return False
    last = vm.history.filter(to_state=State.STARTING).last()
    return last is not None and last.from_state == State.SUSPENDED

"""Drives of VMs that run: who needs them still has the VM held, for as short as can be.

A VM is held by one at a time, in the worker, which is one process: locks tell who waits. Its
agent freezes the file systems, the VMM stops the CPUs, the copies are made, and both are taken
back in reverse order. What a killed worker held, the supervisor of the next one lets go; what a
person has paused stays paused.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from drives.models import Consistency, Drive
from nexus_site.core.errors import Conflict, NexusError, Retryable
from nexus_site.core.operations import open_operations
from nexus_site.core.steps import Run
from vms import supervision
from vms.busy import refuse_for, require_unchanged
from vms.drivers import driver_of
from vms.hypervisors.base import Handle
from vms.memory_files import forgotten_memories, known_memory_bytes
from vms.models import VM
from vms.paths import vm_dir
from vms.services.rules import require_rest, require_settled
from vms.states import ALIVE, AT_REST, Desired, State
from vms.transitions import try_move

log = logging.getLogger(__name__)

RESUME_TRIES = 3  # a VMM that is asked too much at once may miss one
LOOK = 1.0  # seconds between two looks at whether a waiting operation is still wanted

_locks: dict[int, threading.RLock] = {}
_held: dict[int, Held] = {}
_paused: set[int] = set()


@dataclass
class Held:
    """A VM while it is held; ``milliseconds`` is known after, if its CPUs ran before.

    Who ends the VMM while it is held says that it ``goes_on`` no more.
    """

    consistency: Consistency
    milliseconds: int | None = None
    goes_on: bool = True


class LiveDrives:
    """Provides ``drives.live``."""

    def require_rest(self, drive: Drive, what: str) -> None:
        vm = _vm_of([drive])
        if vm is not None:
            require_rest(vm, what, "the drives of a VM")
            refuse_for(vm, open_operations(vm))

    def require_settled(self, drive: Drive) -> None:
        vm = _vm_of([drive])
        if vm is not None:
            require_settled(vm)

    def memory_bytes(self) -> int:
        return known_memory_bytes()

    def forgotten_memories(self) -> list[Path]:
        return forgotten_memories()

    @contextmanager
    def hold(self, drives: Sequence[Drive], run: Run) -> Iterator[Consistency]:
        with hold(drives, run) as held:
            yield held.consistency


@contextmanager
def hold(drives: Sequence[Drive], run: Run, *, with_memory: bool = False) -> Iterator[Held]:
    """Nothing writes to ``drives`` inside the block; see ``drives.live.LiveDrives.hold``.

    Held again inside the block, by the same thread, a VM just stays so. ``with_memory``: its
    memory is to be saved, so its file systems are written out, but not frozen: a guest that went
    on from that memory would be frozen too, with nobody there to thaw it.
    """
    vm = _vm_of(drives)
    if vm is None:
        require_unchanged(drives, None, by=run.operation)
        yield Held(Consistency.AT_REST)
        return
    with alone_with(vm, run):
        if vm.pk in _held:
            yield _held[vm.pk]
            return
        vm.refresh_from_db()
        if vm.state in AT_REST:
            require_unchanged(drives, vm, by=run.operation)
            cut = vm.state == State.SUSPENDED  # its guest has not written everything out
            yield Held(Consistency.CRASH if cut else Consistency.AT_REST)
        else:
            with _standing_still(vm, run, freezing=not with_memory) as held:
                yield held


@contextmanager
def alone_with(vm: VM, run: Run) -> Iterator[None]:
    """Waits until nobody else holds the VM; nobody else does inside the block."""
    lock = _lock_of(vm)
    while not lock.acquire(timeout=LOOK):
        run.check()
    try:
        yield
    finally:
        lock.release()


def is_held(vm: VM) -> bool:
    """Whether the VM stands still: this process holds it, or it is paused. Asks no database."""
    return vm.pk in _held or vm.pk in _paused


def is_paused(vm: VM) -> bool:
    """Whether somebody wants it to stand still, and it does."""
    return vm.state == State.PAUSED and vm.desired_state == Desired.PAUSED


def note_paused(vm: VM, paused: bool) -> None:
    """Tell those who wait for the VM's agent whether it can answer at all."""
    if paused:
        _paused.add(vm.pk)
    else:
        _paused.discard(vm.pk)


def let_go(vm: VM, handle: Handle) -> None:
    """Let a VM go on that somebody held who was killed; nothing if it runs, is held by now, or
    is to stay paused."""
    lock = _lock_of(vm)
    if not lock.acquire(blocking=False):
        return
    try:
        vm.refresh_from_db(fields=["state", "desired_state"])
        note_paused(vm, is_paused(vm))
        if vm.pk not in _held and vm.state in ALIVE and not is_paused(vm):
            go_on(vm, handle, "it was held by a worker that is no more")
    finally:
        lock.release()


@contextmanager
def _standing_still(vm: VM, run: Run, *, freezing: bool) -> Iterator[Held]:
    handle, ready, stays = running(vm), vm.state == State.READY, is_paused(vm)
    held = _held[vm.pk] = Held(_consistency_when_paused(vm))
    began = asked = time.monotonic()
    try:
        frozen = ready and supervision.freeze(vm)
        if frozen and not freezing:
            supervision.thaw(vm)
        began = time.monotonic()
        driver_of(vm).pause(handle)
        if frozen and freezing and time.monotonic() - asked < supervision.FREEZE_SECONDS:
            held.consistency = Consistency.FROZEN
        _note_pause(vm, held, run)
        yield held
    finally:
        if held.goes_on and not stays:
            go_on(vm, handle, "the copies are made")
            held.milliseconds = round((time.monotonic() - began) * 1000)
        del _held[vm.pk]
        if ready and freezing:
            supervision.thaw(vm)


def _consistency_when_paused(vm: VM) -> Consistency:
    """What a worker that was killed while it held the VM had reached: it has not run since."""
    last = vm.history.last() if vm.state == State.PAUSED else None
    return Consistency(last.detail.get("consistency", "crash")) if last else Consistency.CRASH


def _lock_of(vm: VM) -> threading.RLock:
    return _locks.setdefault(vm.pk, threading.RLock())  # one call, so threads agree on one lock


def running(vm: VM) -> Handle:
    """The VMM of a VM that runs or is paused; ``Conflict`` where there is none."""
    found = driver_of(vm).adopt(vm_dir(vm))
    if vm.state not in ALIVE or not isinstance(found, Handle):
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; it cannot be held now.",
            hint="Try again when it has come to rest or runs.",
            code="vm-busy",
        )
    return found


def _note_pause(vm: VM, held: Held, run: Run) -> None:
    """ready → paused; a VM whose agent does not answer stays what it is for the moment."""
    reason = f"held still: {run.operation.title}"
    detail = {"consistency": held.consistency}
    moved = try_move(vm, State.PAUSED, reason, detail=detail, only_from=frozenset({State.READY}))
    if moved is None:
        vm.refresh_from_db(fields=["state"])
        running(vm)  # it may be stopping by now


def go_on(vm: VM, handle: Handle, reason: str) -> None:
    """Let its CPUs run: a paused VM is ready. Called by who is alone with it."""
    driver = driver_of(vm)
    for tries_left in reversed(range(RESUME_TRIES)):
        try:
            driver.resume(handle)
        except Retryable:
            if tries_left:
                continue
            log.exception("%s could not be resumed; the supervisor tries again", vm.name)
            note_paused(vm, True)
            return
        except NexusError as error:  # it has ended, and who watches it records that
            log.info("%s does not go on: %s", vm.name, error.text)
            return
        break
    note_paused(vm, False)
    try_move(vm, State.READY, reason, only_from=frozenset({State.PAUSED}))


def _vm_of(drives: Sequence[Drive]) -> VM | None:
    """The VM that has the drives. Raises ``Conflict`` where there are several."""
    found = list(VM.objects.filter(attachments__drive__in=drives).distinct())
    if len(found) > 1:
        raise Conflict("The drives are not in one VM any more.", code="drives-apart")
    return found[0] if found else None

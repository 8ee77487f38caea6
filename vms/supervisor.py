"""The supervisor: one asyncio loop that watches every VMM and holds every agent.

It takes no orders. On a signal (``wake``) and on a timer it asks reality, through the
drivers, what runs; it adopts what runs, records what ended, lets go what a killed worker held
still, and never deletes anything because the host looks empty. For each VMM it keeps one
``Watch``: the exit through a pidfd, the agent through a connection that is dialled again for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TypeVar

import uvloop
from django.conf import settings
from django.db import close_old_connections

from guest_agent.connection import AgentConnection
from guest_agent.sessions import Sessions
from nexus_site.core import events
from nexus_site.core.errors import Broken, NexusError
from nexus_site.core.ids import decode, is_id, resolve
from nexus_site.core.operations import open_operations
from vms import idleness, live_drives, outcomes, supervision
from vms.drivers import driver_of
from vms.gateway import SOCKET, Gateway
from vms.hypervisors.base import Exit, Handle
from vms.models import VM
from vms.paths import vm_dir
from vms.services import forks, policies, refilling, rules
from vms.states import ALIVE, WITH_VMM, State
from vms.watch import Watch

log = logging.getLogger(__name__)

T = TypeVar("T")
ASK_TIMEOUT = 10.0  # seconds
CALL_TIMEOUT = 60.0  # for calls that have a time of their own, which is shorter


class Supervisor:
    """Runs in a thread of the worker; ``wake`` and ``ask_to_shut_down`` are for other threads."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._woken = asyncio.Event()
        self._watches: dict[int, Watch] = {}
        self._database = ThreadPoolExecutor(1, thread_name_prefix="supervisor-db")
        self._stopping = False
        self._first = True
        self._pause = settings.NEXUS.reconcile_interval
        self._gateway = Gateway(self._agent_of)
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    def start(self) -> None:
        """Begin in a thread of its own; the VMs that run are adopted at once."""
        supervision.set_supervisor(self)
        self._thread.start()

    def stop(self) -> None:
        """End; the VMs go on without it."""
        supervision.set_supervisor(None)
        self._stopping = True
        self.wake()
        self._thread.join(timeout=10)
        self._database.shutdown(wait=True)

    def wake(self) -> None:
        """Reconcile now."""
        self._loop.call_soon_threadsafe(self._woken.set)

    def ask_to_shut_down(self, vm: VM) -> bool:
        """Ask the VM's agent to power the guest off; False when it cannot be asked."""
        return self._ask(vm, Watch.shut_down, "shutdown")

    def freeze(self, vm: VM) -> bool:
        """Have its agent freeze the VM's file systems; False when it does not."""
        return self._ask(vm, Watch.freeze, "freeze", supervision.FREEZE_SECONDS + 5)

    def thaw(self, vm: VM) -> bool:
        """Have its agent thaw them; False when it does not."""
        return self._ask(vm, Watch.thaw, "thaw")

    def with_agent(self, vm: VM, call: Callable[[AgentConnection], Awaitable[T]]) -> T:
        """What ``call`` makes of the VM's agent; ``Retryable`` when there is none to ask."""
        watch = self._watches.get(int(vm.id))
        if watch is None:
            raise supervision.no_agent(vm)
        asked = asyncio.run_coroutine_threadsafe(watch.with_agent(call), self._loop)
        try:
            return asked.result(timeout=CALL_TIMEOUT)
        except TimeoutError:
            asked.cancel()
            raise supervision.no_agent(vm) from None

    def quiet_seconds(self, vm: VM) -> float:
        """Since somebody last used the VM's agent."""
        return self._gateway.quiet_seconds(vm.ref)

    def _ask(
        self,
        vm: VM,
        call: Callable[[Watch], Coroutine[None, None, bool]],
        what: str,
        timeout: float = ASK_TIMEOUT,
    ) -> bool:
        watch = self._watches.get(int(vm.id))
        if watch is None:
            return False
        asked = asyncio.run_coroutine_threadsafe(call(watch), self._loop)
        try:
            return asked.result(timeout=timeout)
        except Exception:
            asked.cancel()
            log.info("the agent of %s did not take the %s", vm.name, what, exc_info=True)
            return False

    async def in_database(self, call: Callable[[], T]) -> T:
        """Run ``call``, which uses the ORM, in the one thread that does so."""

        def run() -> T:
            close_old_connections()
            with events.acting(events.SYSTEM):
                return call()

        return await self._loop.run_in_executor(self._database, run)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._main())
        finally:
            self._loop.close()

    async def _main(self) -> None:
        await self._gateway.open(Path(settings.NEXUS.run_dir) / SOCKET)
        while not self._stopping:
            self._woken.clear()
            try:
                await self._reconcile()
            except Exception:
                log.exception("the supervisor could not reconcile; it tries again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._pause)
        await self._gateway.close()
        await asyncio.gather(*(watch.close() for watch in self._watches.values()))

    async def _agent_of(self, ref: str) -> AgentConnection:
        """The agent of the VM with this ID, for the gateway; raises why there is none."""
        watch = self._watches.get(decode(ref) if is_id(ref) else 0)
        if watch is not None and watch.agent is not None:
            return watch.agent
        raise await self.in_database(partial(_why_no_agent, ref))

    async def _reconcile(self) -> None:
        self._forget_ended()
        first, self._first = self._first, False
        for vm, handle in await self.in_database(lambda: _look(adopting=first)):
            if int(vm.id) not in self._watches:
                watch = Watch(self, vm, handle)
                self._watches[int(vm.id)] = watch
                watch.start()
            if vm.state == State.PAUSED or (first and vm.state in ALIVE):
                await self.in_database(partial(live_drives.let_go, vm, handle))
        await self._suspend_idle()
        await self.in_database(forks.discard_spent_checkpoints)
        await self.in_database(refilling.tend_all)
        due = await self.in_database(policies.start_due)
        self._pause = min(settings.NEXUS.reconcile_interval, due or math.inf)

    def _forget_ended(self) -> None:
        for watch in [w for w in self._watches.values() if w.over]:
            self._watches.pop(int(watch.vm.id), None)
            idleness.forget(watch.vm)

    async def _suspend_idle(self) -> None:
        """Suspend the VMs that have done no work for as long as they were told."""
        for vm in await self.in_database(idleness.candidates):
            quiet = self._gateway.quiet_seconds(vm.ref)
            watch = self._watches.get(int(vm.id))
            if watch is None or watch.agent is None:
                continue
            due = await self.in_database(partial(idleness.is_due, vm, quiet))
            if not due and idleness.is_noted(vm):
                continue
            with contextlib.suppress(NexusError):  # it does not answer, which others act on
                sessions = await Sessions(watch.agent).list()
                if not due:
                    idleness.note(vm, sessions)
                elif await self.in_database(partial(idleness.are_quiet, vm, sessions)):
                    await self.in_database(partial(idleness.suspend, vm))


def _why_no_agent(ref: str) -> NexusError:
    try:
        vm = resolve(VM.objects.all(), ref)
        rules.require_ready(vm)
    except NexusError as error:
        return error
    return supervision.no_agent(vm)


def _look(adopting: bool) -> list[tuple[VM, Handle]]:
    """What runs, of the VMs that should have a VMM; what has ended is recorded on the way.

    ``adopting``: the first look of this worker, so what runs was launched by an earlier one.
    """
    running = []
    for vm in VM.objects.filter(state__in=WITH_VMM):
        found = driver_of(vm).adopt(vm_dir(vm))
        if isinstance(found, Handle):
            if vm.state == State.STARTING and not _is_being_started(vm):
                outcomes.vmm_runs(vm, found)
            if adopting:
                events.append("vm.adopted", vm, pid=found.pid)
            running.append((vm, found))
        elif vm.state == State.STARTING:
            _settle_start(vm)
        else:
            _settle_end(vm, found)
    return running


def _settle_start(vm: VM) -> None:
    """A VM is ``starting`` and nothing runs: fine while an operation works on it."""
    if not _is_being_started(vm):
        vm.refresh_from_db(fields=["state"])
        if vm.state == State.STARTING:
            error = Broken("The start was interrupted.", code="start-interrupted")
            outcomes.start_failed(vm, error)


def _is_being_started(vm: VM) -> bool:
    """By an operation of its own, or as one of several forks."""
    return open_operations(vm, children=True).exists()


def _settle_end(vm: VM, found: Exit | None) -> None:
    """The VMM ended while nobody watched: its monitor wrote down how, if it could."""
    outcomes.vmm_ended(vm, found or Exit(None, None, None))

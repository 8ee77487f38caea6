"""One VM under watch: its VMM's exit, and its agent."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import Protocol, TypeVar

from django.conf import settings
from django.db import transaction
from django.utils import timezone

from guest_agent import transports
from guest_agent.clock import set_clock
from guest_agent.connection import AgentConnection
from guest_agent.messages import BootTimes, Heartbeat, Hello
from guest_agent.transports import AgentLine
from guest_agent.yamux import gone
from nexus_site.core.errors import NexusError, Retryable
from vms import live_drives, outcomes, provisioning_records, silence, supervision
from vms.drivers import driver_of
from vms.hypervisors.base import Exit, Handle
from vms.models import VM
from vms.paths import vm_dir
from vms.provisioning import provision
from vms.provisioning_records import Who, Work
from vms.sampling import Sampler
from vms.silence import Clock, Signs
from vms.states import State

log = logging.getLogger(__name__)

T = TypeVar("T")
# A guest takes a moment to notice that its host has hung up; dialling sooner is slower.
REDIAL_FIRST, REDIAL_MOST = 0.25, 2.0  # seconds
METRICS_EVERY = 30.0  # seconds
IDENTITY_TIMEOUT = 180.0  # seconds; an emulated guest takes long to make keys of its own
# A guest that is resumed may call before the start that resumed it is written down.
RECORD_LOOK, RECORD_PATIENCE = 0.02, 10.0  # seconds


class Database(Protocol):
    """Runs ORM calls for coroutines, one after the other."""

    async def in_database(self, call: Callable[[], T]) -> T: ...


class Watch:
    """Follows one VMM from its launch or adoption to its end."""

    def __init__(self, database: Database, vm: VM, handle: Handle) -> None:
        self.vm, self.handle = vm, handle
        self.over = False
        self._database = database
        self._agent: AgentConnection | None = None
        self._answered_at = time.monotonic()
        self._sampler = Sampler(vm, handle)
        self._ended = ""  # why the last connection to the agent did
        self._clock = Clock()
        self._provisioning = False
        self._resumed = False  # its guest goes on from a saved memory
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def agent(self) -> AgentConnection | None:
        """The agent, while it is connected."""
        return self._agent

    def start(self) -> None:
        """Begin to watch; returns at once."""
        works = (self._follow_exit, self._follow_agent, self._notice_silence, self._follow_metrics)
        for work in works:
            self._tasks.append(asyncio.create_task(self._guarded(work), name=work.__name__))

    async def close(self) -> None:
        """Stop watching; the VMM goes on."""
        current = asyncio.current_task()
        others = [task for task in self._tasks if task is not current]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._hang_up()

    async def shut_down(self) -> bool:
        """Ask the agent to power the guest off; False when there is none to ask."""
        if self._agent is None:
            return False
        await self._agent.shutdown("poweroff", grace=settings.NEXUS.shutdown_timeout / 2)
        return True

    async def freeze(self) -> bool:
        """Have the agent freeze the guest's file systems; False when there is none to ask."""
        if self._agent is None:
            return False
        await self._agent.freeze(supervision.FREEZE_SECONDS)
        return True

    async def thaw(self) -> bool:
        """Have the agent thaw them; False when there is none to ask."""
        if self._agent is None:
            return False
        await self._agent.thaw()
        return True

    async def with_agent(self, call: Callable[[AgentConnection], Awaitable[T]]) -> T:
        """What ``call`` makes of the agent; ``Retryable`` when there is none."""
        if self._agent is None:
            raise supervision.no_agent(self.vm)
        return await call(self._agent)

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("watching %s: %s failed", self.vm.name, work.__name__)

    # The VMM

    async def _follow_exit(self) -> None:
        """Wait for the VMM's end, then record it with what its monitor wrote down."""
        await _process_end(self.handle.pid, self._runs)
        live_drives.note_paused(self.vm, False)
        ended = await self._database.in_database(self._exit_record)
        self.over = True
        await self.close()
        await self._database.in_database(lambda: outcomes.vmm_ended(self.vm, ended, self.handle))

    def _runs(self) -> bool:
        """Whether the process is still the VMM, and not another one under its pid."""
        found = driver_of(self.vm).adopt(vm_dir(self.vm))
        return isinstance(found, Handle) and found.pid == self.handle.pid

    def _exit_record(self) -> Exit:
        driver = driver_of(self.vm)
        until = time.monotonic() + 2
        while time.monotonic() < until:
            found = driver.adopt(vm_dir(self.vm))
            if isinstance(found, Exit) and found.at is not None:
                return found
            time.sleep(0.01)
        return found if isinstance(found, Exit) else Exit(None, None, None)

    async def _follow_metrics(self) -> None:
        """Keep the VMM's own counters now and then."""
        while True:
            await asyncio.sleep(METRICS_EVERY)
            with contextlib.suppress(NexusError):
                await self._keep_metrics()

    async def _keep_metrics(self) -> None:
        counters = await asyncio.to_thread(driver_of(self.vm).metrics, self.handle)
        await self._database.in_database(
            lambda: outcomes.keep_metrics(self.vm, self.handle, counters)
        )

    # The agent

    async def _follow_agent(self) -> None:
        """Have a line to the agent for ever, and meet it there."""
        while True:
            with contextlib.suppress(OSError), contextlib.closing(self._line()) as line:
                await self._meet_again_and_again(line)
            await asyncio.sleep(REDIAL_MOST)

    def _line(self) -> AgentLine:
        socket = driver_of(self.vm).agent_socket(vm_dir(self.vm))
        return transports.open_line(socket.path, guest_dials=socket.guest_dials, uid=socket.uid)

    async def _meet_again_and_again(self, line: AgentLine) -> None:
        """Meet the agent for ever, with growing pauses; stay with it while it answers."""
        pause = REDIAL_FIRST
        while True:
            reason, began = "the connection was refused", time.monotonic()
            with contextlib.suppress(OSError):
                reason = await self._meet(line)
            if time.monotonic() - began > REDIAL_MOST:  # else it calls and leaves again
                pause = REDIAL_FIRST
            log.debug("agent of %s: %s", self.vm.name, reason)
            self._ended = reason
            await self._database.in_database(self._end_if_halted)
            await asyncio.sleep(pause)
            pause = min(pause * 2, REDIAL_MOST)

    async def _meet(self, line: AgentLine) -> str:
        """One connection from its beginning to its end; why it ended."""
        reader, writer = await line.connect()
        superseded = asyncio.create_task(line.superseded())
        talk = asyncio.create_task(self._talk(reader, writer))
        try:
            await asyncio.wait({superseded, talk}, return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                return talk.result()
            return "The agent called anew."
        finally:
            superseded.cancel()
            talk.cancel()
            await asyncio.gather(superseded, talk, return_exceptions=True)

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        try:
            self._agent = await AgentConnection.open(reader, writer, hello_timeout=None)
            return gone(await self._stay()).text
        except NexusError as error:
            return error.text
        finally:
            await self._hang_up()

    async def _hang_up(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            await agent.close()

    async def _stay(self) -> str:
        """Greet the agent, then ask for its heartbeat until the connection ends; says why."""
        agent = self._agent
        assert agent is not None, "called with a connection"
        said_at = timezone.now()
        hello, warning = await self._configure(agent)
        self._answered_at = time.monotonic()
        said = hello.to_dict()
        work = await self._database.in_database(
            lambda: provisioning_records.begin(self.vm, said, said_at, warning)
        )
        provisioned = asyncio.create_task(self._provision(agent, work))
        ended = asyncio.create_task(agent.wait_closed())
        settled = asyncio.create_task(self._note_settled(agent))
        stood_still = False
        try:
            while not (await asyncio.wait({ended}, timeout=settings.NEXUS.heartbeat_interval))[0]:
                if live_drives.is_held(self.vm):
                    stood_still = True
                    continue
                if stood_still:  # its clock has stood still too
                    stood_still = False
                    with contextlib.suppress(NexusError):
                        await set_clock(agent)
                await self._ask_for_heartbeat(agent)
            return ended.result()
        finally:
            for task in (provisioned, settled, ended):
                task.cancel()

    async def _provision(self, agent: AgentConnection, work: Work | None) -> None:
        """Until the guest has what its VM is to have; heartbeats go on meanwhile."""
        if work is None:
            return
        self._provisioning = True
        try:
            with contextlib.suppress(NexusError):  # the agent is gone: its next hello goes on
                await provision(self._database, self.vm, agent, work)
        finally:
            self._provisioning = False

    async def _ask_for_heartbeat(self, agent: AgentConnection) -> None:
        asked = time.time()
        try:
            heartbeat = await agent.heartbeat(timeout=settings.NEXUS.heartbeat_timeout)
        except Retryable:
            if live_drives.is_held(self.vm):
                return  # no guest answers then
            raise
        self._answered_at = time.monotonic()
        await self._database.in_database(partial(self._keep, heartbeat))
        if self._clock.is_to_be_set(heartbeat, asked):
            await self._set_clock(agent, silence.describe_drift(self._clock.drift))

    async def _set_clock(self, agent: AgentConnection, drift: str) -> None:
        with contextlib.suppress(NexusError):
            await set_clock(agent)
            await self._database.in_database(lambda: outcomes.clock_corrected(self.vm, drift))

    async def _note_settled(self, agent: AgentConnection) -> None:
        if self._resumed:  # that was in another life
            return
        with contextlib.suppress(NexusError):
            seconds = await agent.wait_settled()
            await self._database.in_database(lambda: outcomes.guest_settled(self.vm, seconds))

    async def _configure(self, agent: AgentConnection) -> tuple[Hello, str]:
        """Tell the guest what time it is, at once, and who it is. Returns what the hello of the
        guest is that it is now, and a warning where it did not take something."""
        asked = asyncio.create_task(self._who())
        hello, problems = agent.hello, []
        try:
            await set_clock(agent)
        except NexusError as error:
            problems.append(error.text)
        try:
            wanted = (await asked).configuration
            answer = await agent.configure(wanted, IDENTITY_TIMEOUT)
            hello = replace(
                hello,
                boot_id=answer.boot_id or hello.boot_id,
                hostname=wanted.hostname or hello.hostname,
            )
        except Retryable:  # it is as it was, and may be somebody else still: not ready
            raise
        except NexusError as error:
            problems.append(error.text)
        if self._resumed:
            hello = replace(hello, boot=BootTimes())
        warning = f"The guest was not configured: {' '.join(problems)}" if problems else ""
        if warning:
            log.warning("%s: %s", self.vm.name, warning)
        return hello, warning

    async def _who(self) -> Who:
        """Who the guest is, once it is written down how it was started."""
        deadline = time.monotonic() + RECORD_PATIENCE
        while True:
            if told := await self._database.in_database(partial(provisioning_records.who, self.vm)):
                self._resumed = told.resumed
                return told
            if time.monotonic() > deadline:
                raise Retryable("It is not known how it was started.", code="start-unknown")
            await asyncio.sleep(RECORD_LOOK)

    def _keep(self, heartbeat: Heartbeat) -> None:
        """The last heartbeat; the first one after a silence brings the VM back."""
        said = heartbeat.to_dict()
        with transaction.atomic():
            vm = VM.objects.filter(pk=self.vm.pk)
            if vm.update(heartbeat=said, heartbeat_at=timezone.now()):
                self._sampler.keep(said, self._answered_at)
        row = VM.objects.filter(pk=self.vm.pk).values("state", "agent").first()
        silent = row and row["state"] in (State.RUNNING, State.UNREACHABLE)
        if row and silent and not self._provisioning:
            outcomes.agent_said_hello(self.vm, row["agent"], timezone.now())

    async def _notice_silence(self) -> None:
        """Say ``unreachable`` when the agent has not answered for longer than it may."""
        while True:
            await asyncio.sleep(1)
            await self._database.in_database(self._check_silence)

    def _check_silence(self) -> None:
        if live_drives.is_held(self.vm):
            self._answered_at = time.monotonic()
        silent = time.monotonic() - self._answered_at
        if silent > settings.NEXUS.heartbeat_interval:
            self._end_if_halted()
        signs = Signs(self._agent is not None, self._ended, self._clock.drift)
        silence.notice(self.vm, silent, signs)

    def _end_if_halted(self) -> None:
        """A guest that has switched itself off may leave its VMM running: that ends too."""
        if not driver_of(self.vm).has_halted(vm_dir(self.vm)) or not self._runs():
            return
        try:
            outcomes.guest_halted(self.vm, self.handle)
        except NexusError as error:
            log.warning("the guest of %s has halted: %s", self.vm.name, error.text)


async def _process_end(pid: int, is_the_one: Callable[[], bool]) -> None:
    """Wait until process ``pid`` is no more; returns at once when it is another one by now."""
    loop = asyncio.get_running_loop()
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not is_the_one():
            return
        ended = asyncio.Event()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
    finally:
        os.close(pidfd)

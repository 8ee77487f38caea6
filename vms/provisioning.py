"""A guest is given what its VM is to have: settings and files at every start, and once for each
root drive its first-boot script.

It begins with the agent's hello and ends with the VM's being ``ready``, or ``failed``. Whoever
is cut short leaves it to the agent's next hello: settings and files are given again, and the
script is a session in the guest, which that finds again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import Any, Protocol, TypeVar

from django.conf import settings

from guest_agent.chunks import ExitStatus
from guest_agent.connection import AgentConnection
from guest_agent.exec import Program
from guest_agent.files import Files
from guest_agent.messages import Configuration
from guest_agent.refusals import UPGRADE_HINT, explained
from guest_agent.sessions import Attachment, Sessions
from guest_agent.upgrade import version_number
from nexus_site.core.errors import Broken, Conflict, NexusError, Retryable, as_nexus_error
from nexus_site.core.terminal import plain_text
from vms import live_drives
from vms import provisioning_records as records
from vms.models import VM
from vms.provisioning_records import Phase, Work

log = logging.getLogger(__name__)

T = TypeVar("T")

SESSION = "first-boot"
SCRIPT = "/etc/nexus/first-boot"
FIRST_AGENT = (0, 3, 0)  # that knows variables of programs, host names, files and sessions
SERVICES_PATIENCE = 60.0  # seconds for the distribution's init; then the script runs all the same
HOST_PATIENCE = 60.0  # seconds on top of twice the script's own time, which the guest keeps
MAX_LOG = 64 * 1024
KEEP = 2 * MAX_LOG
LOG_EVERY = 1.0  # seconds between two writes of the script's output
BURST, PAUSE = 256 * 1024, 0.1  # bytes of output, after which others get their turn


class Database(Protocol):
    """Runs ORM calls for coroutines, one after the other."""

    async def in_database(self, call: Callable[[], T]) -> T: ...


async def provision(database: Database, vm: VM, agent: AgentConnection, work: Work) -> None:
    """Do ``work`` and record how it went. Raises ``Retryable`` (``agent-gone``) where the
    connection ends before that."""
    problem: NexusError | None = None
    try:
        await _Provisioner(database, vm, agent, work).run()
    except Exception as error:
        problem = as_nexus_error(error)
        if problem.code == "agent-gone":
            raise
        if not isinstance(error, NexusError):
            log.exception("provisioning %s", vm.name)
        log.warning("provisioning %s: %s", vm.name, problem.text)
    await database.in_database(partial(records.end, vm, work, problem))


class _Provisioner:
    def __init__(self, database: Database, vm: VM, agent: AgentConnection, work: Work) -> None:
        self._database, self._vm, self._agent, self._work = database, vm, agent, work
        self._log = ScriptLog(records.masked_words(work.secrets))

    async def run(self) -> None:
        """All of it, in order. Raises what went wrong."""
        work = self._work
        if not work.resumes:
            self._require_new_enough()
            await self._unheld(self._configure)
            for file in work.files:
                await self._unheld(partial(self._write, file))
        if work.script:
            if not work.resumes:
                await self._wait_for_services()
                await self._enter(Phase.SCRIPT)
            await self._run_script()

    def _require_new_enough(self) -> None:
        work, version = self._work, self._agent.hello.agent_version
        parts = {
            "variables": work.env,
            "host names": work.hosts,
            "files": work.files,
            "the first-boot script": work.script,
        }
        missing = [name for name, wanted in parts.items() if wanted]
        if missing and version_number(version) < FIRST_AGENT:
            raise Conflict(
                f"Agent outdated: {version or 'it'} knows nothing of what this VM is given; "
                f"its guest is without {', '.join(missing)}.",
                hint=UPGRADE_HINT,
                code="agent-outdated",
            )

    async def _configure(self) -> None:
        """Also where there is nothing: what an earlier start gave is taken away."""
        if version_number(self._agent.hello.agent_version) >= FIRST_AGENT:
            with explained():
                await self._agent.configure(
                    Configuration(env=self._work.env, hosts=self._work.hosts)
                )

    async def _write(self, pk: Any) -> None:
        found = await self._database.in_database(partial(records.file_to_write, pk))
        if found is None:
            return
        file, content = found
        await self._send(file.path, content, file.mode, file.user)

    async def _send(self, path: str, content: bytes, mode: int, user: str = "") -> None:
        try:
            await Files(self._agent).write(
                path, _whole(content), size=len(content), mode=mode, user=user, parents=True
            )
        except NexusError as error:
            if isinstance(error, Retryable):
                raise
            raise type(error)(f"{path}: {error.text}", hint=error.hint, code=error.code) from error

    async def _wait_for_services(self) -> None:
        """A script may want what the distribution's init starts and mounts."""
        if self._agent.settled_at is None:
            await self._enter(Phase.SERVICES)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(SERVICES_PATIENCE):
                    await self._agent.wait_settled()

    # The script

    async def _run_script(self) -> None:
        sessions, work = Sessions(self._agent), self._work
        await self._unheld(partial(self._send, SCRIPT, work.script.encode(), 0o700))
        await self._unheld(lambda: sessions.start(SESSION, _program(work.script), keep=KEEP))
        look = await self._unheld(lambda: sessions.attach(SESSION))
        try:
            async with asyncio.timeout(2 * settings.NEXUS.script_timeout + HOST_PATIENCE):
                status = await self._follow(look)
        except TimeoutError:
            with contextlib.suppress(NexusError):
                await sessions.signal(SESSION, 9)
            status = ExitStatus(signal=9, timed_out=True)
        text = self._log.text()
        await self._database.in_database(partial(records.script_ended, work, status, text))
        with contextlib.suppress(NexusError):  # its output has been kept
            await sessions.forget(SESSION)
        if status.code != 0:
            raise Broken(f"The first-boot script {_how(status)}.", detail=text, code="script")

    async def _follow(self, look: Attachment) -> ExitStatus:
        keeping = asyncio.create_task(self._keep_log())
        since_pause = 0
        self._log.begins_at(look.offset)
        try:
            while output := await look.read():
                self._log.add(output.data, lost=output.lost)
                since_pause += len(output.data)
                if since_pause > BURST:
                    since_pause = 0
                    await asyncio.sleep(PAUSE)
        finally:
            keeping.cancel()
            await asyncio.gather(keeping, return_exceptions=True)
            look.close()
        if look.exit is None:
            raise Broken("The guest does not know how the first-boot script ended.", code="script")
        return look.exit

    async def _keep_log(self) -> None:
        while True:
            await asyncio.sleep(LOG_EVERY)
            if self._log.is_new:
                text = self._log.text()
                await self._database.in_database(partial(records.keep_log, self._work.row, text))

    # Both

    async def _enter(self, phase: Phase) -> None:
        await self._database.in_database(partial(records.enter, self._vm, self._work.row, phase))

    async def _unheld(self, call: Callable[[], Awaitable[T]]) -> T:
        """Make the call; again, where the guest stood still meanwhile for a copy of its drives."""
        while True:
            began = time.monotonic()
            try:
                return await call()
            except Retryable as error:
                if error.code == "agent-gone" or not live_drives.is_held(self._vm):
                    raise
            await asyncio.sleep(max(0.0, began + 1 - time.monotonic()))


class ScriptLog:
    """The end of a script's output, as text without secrets and control sequences."""

    def __init__(self, masked: list[bytes]) -> None:
        self.is_new = False
        self._masked = masked
        self._data = bytearray()
        self._cut = False  # the first line is not whole

    def begins_at(self, offset: int) -> None:
        """Bytes before ``offset`` are not known."""
        self._cut = offset > 0

    def add(self, data: bytes, *, lost: int = 0) -> None:
        """More output, before which ``lost`` bytes are missing."""
        if lost:
            self._data.clear()
            self._cut = True
        self._data += data
        if len(self._data) > 2 * KEEP:
            del self._data[:-KEEP]
            self._cut = True
        self.is_new = True

    def text(self) -> str:
        """At most 64 KiB of it. A line that has lost its beginning may be half a secret."""
        self.is_new = False
        data = bytes(self._data)
        data = data.partition(b"\n")[2] if self._cut else data
        for word in self._masked:
            data = data.replace(word, b"[secret]")
        return plain_text(data[-MAX_LOG:].decode("utf-8", "replace"))


def _program(script: str) -> Program:
    """The script says what runs it, else the shell does."""
    argv = (SCRIPT,) if script.startswith("#!") else ("/bin/sh", SCRIPT)
    return Program(argv, cwd="/", merge=True, timeout=settings.NEXUS.script_timeout)


def _how(status: ExitStatus) -> str:
    if status.timed_out:
        return f"did not end within {settings.NEXUS.script_timeout:g} s and was killed"
    if status.signal is not None:
        return f"was killed by signal {status.signal}"
    return f"ended with exit code {status.code}"


async def _whole(content: bytes) -> AsyncIterator[bytes]:
    if content:
        yield content

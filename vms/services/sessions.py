"""Programs that live on in VMs. The agents hold them; the database knows of none."""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager

from channels.db import database_sync_to_async

from guest_agent.exec import Program
from guest_agent.sessions import (
    DEFAULT_KEEP,
    MAX_OFFSET,
    Attachment,
    Sessions,
    SessionState,
    Started,
)
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid, NotFound, Retryable
from nexus_site.core.ids import free_name
from vms.agents import GatewayAgent
from vms.models import VM
from vms.services.programs import name_of

END_PATIENCE = 15.0  # seconds for a program that was killed to be gone
NAMES_TRIED = 10  # others may take one meanwhile
INPUT_PATIENCE = 10.0  # seconds for a program to read what it is given

_ID = re.compile(r"[A-Za-z0-9-]{1,64}")


def sessions_of(vm: VM) -> Sessions:
    """The sessions of a ready VM, held by its agent."""
    return Sessions(GatewayAgent(vm))


async def start_session(
    vm: VM, session_id: str, program: Program, keep: int = DEFAULT_KEEP
) -> Started:
    """Start ``program`` on a VM that is ready, or find the session that is called so already.

    History says who started what: the program's name, never its arguments, variables or input.
    """
    if not _ID.fullmatch(session_id):
        raise Invalid(
            f"“{session_id[:64]}” cannot name a session: 1 to 64 letters, digits and hyphens.",
            code="session-name",
        )
    started = await sessions_of(vm).start(session_id, program, keep=keep)
    if not started.existing:
        await database_sync_to_async(events.append)(
            "vm.session", vm, session=session_id, program=name_of(program)
        )
    return started


async def start_named_session(vm: VM, program: Program, keep: int = DEFAULT_KEEP) -> str:
    """Start ``program`` as a new session, called after it; gives the name."""
    for _ in range(NAMES_TRIED):
        taken = {session.id for session in await sessions_of(vm).list()}
        session_id = free_name(taken.__contains__, _slug(program))
        if not (await start_session(vm, session_id, program, keep)).existing:
            return session_id
    raise Retryable("No name is free for this session.", code="session-name")


async def find_session(vm: VM, session_id: str) -> SessionState:
    """The session called so; raises ``NotFound``."""
    for session in await sessions_of(vm).list():
        if session.id == session_id:
            return session
    raise _unknown(vm, session_id)


async def look_at_session(vm: VM, session_id: str, offset: int = 0) -> Attachment:
    """Its output from ``offset`` on; ``close`` it. Raises ``NotFound``."""
    with _known(vm, session_id):
        return await sessions_of(vm).attach(session_id, offset)


async def signal_session(vm: VM, session_id: str, number: int) -> None:
    """Send a signal to the session's process group. Raises ``NotFound``."""
    with _known(vm, session_id):
        await sessions_of(vm).signal(session_id, number)


async def type_into_session(vm: VM, session_id: str, data: bytes, *, end: bool) -> None:
    """Give it input, and the input's end; returns when the program has read all of it.

    Raises ``Conflict`` where it has ended or takes none, or does not read: what it did not read
    then waits for it, or is lost where much waits already.
    """
    state = await find_session(vm, session_id)
    if state.exit is not None:
        raise Conflict(f"The session “{session_id}” has ended.", code="session-ended")
    if not state.stdin:
        raise Conflict(f"The session “{session_id}” takes no input.", code="no-input")
    look = await look_at_session(vm, session_id, MAX_OFFSET)
    reading = asyncio.create_task(_to_the_end(look))
    try:
        async with asyncio.timeout(INPUT_PATIENCE):
            await look.write(data)
            if end:
                await look.write_eof()
            await look.drain()
    except TimeoutError:
        raise Conflict(
            f"The session “{session_id}” did not read its input within {INPUT_PATIENCE:.0f} "
            "seconds.",
            hint="It may still read what it was given: do not send it again at once.",
            code="input-waits",
        ) from None
    finally:
        reading.cancel()
        (lost,) = await asyncio.gather(reading, return_exceptions=True)
        look.close()
    if isinstance(lost, Exception):
        raise lost


async def forget_session(vm: VM, session_id: str, *, force: bool) -> None:
    """Give up what is kept of it; what still runs is killed with ``force``, else ``Conflict``."""
    if (await find_session(vm, session_id)).exit is None:
        if not force:
            raise Conflict(
                f"The session “{session_id}” still runs.",
                hint=f"Kill it with --force: nexusctl vm session forget {vm.name} {session_id} "
                "--force (force=1).",
                code="session-runs",
            )
        await _kill(vm, session_id)
    with _known(vm, session_id):
        await sessions_of(vm).forget(session_id)


async def _kill(vm: VM, session_id: str) -> None:
    """Returns when it has ended."""
    look = await look_at_session(vm, session_id, MAX_OFFSET)
    try:
        await signal_session(vm, session_id, signal.SIGKILL)
        async with asyncio.timeout(END_PATIENCE):
            await _to_the_end(look)
    except TimeoutError:
        raise Retryable(f"The session “{session_id}” does not end.", code="session-runs") from None
    finally:
        look.close()


async def _to_the_end(look: Attachment) -> None:
    """Read until the exit; who types is told by the end of the look."""
    try:
        while await look.read():
            pass
    finally:
        look.close()


def _slug(program: Program) -> str:
    """What a session of ``program`` is called: ``/usr/bin/make`` is ``make``."""
    name = "shell" if program.shell else program.argv[0].rpartition("/")[2]
    slug = re.sub("[^a-z0-9]+", "-", name.lower()).strip("-")
    return slug[:40].strip("-") or "session"


@contextmanager
def _known(vm: VM, session_id: str) -> Iterator[None]:
    try:
        yield
    except NotFound:
        raise _unknown(vm, session_id) from None


def _unknown(vm: VM, session_id: str) -> NotFound:
    return NotFound(
        f"There is no session “{session_id[:64]}” in the VM “{vm.name}”.",
        hint=f"List what there is: nexusctl vm session list {vm.name}",
        code="session-not-found",
    )

"""Programs that people and agents run in VMs."""

from __future__ import annotations

import asyncio

from channels.db import database_sync_to_async

from guest_agent.exec import Execution, Program
from nexus_site.core import events
from vms.agents import GatewayAgent
from vms.models import VM

MAX_NAME = 100  # characters of a program's name that history keeps


async def start_program(vm: VM, program: Program) -> Execution:
    """Start ``program`` on a VM that is ready; ``close`` what this returns.

    History says who ran what: the program's name, never its arguments, variables or input. That
    is written while the agent is at work; what cannot be written down is ended again.
    """
    starting = asyncio.create_task(GatewayAgent(vm).start(program))
    try:
        await database_sync_to_async(events.append)("vm.exec", vm, program=name_of(program))
        return await starting
    except BaseException:
        starting.add_done_callback(_end)
        starting.cancel()
        raise


def _end(started: asyncio.Task[Execution]) -> None:
    if not started.cancelled() and started.exception() is None:
        started.result().close()


def name_of(program: Program) -> str:
    """What history calls it."""
    name = "login shell" if program.shell else program.argv[0]
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"

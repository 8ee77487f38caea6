"""Programs that live on in VMs. The agents hold them; the database knows of none."""

from __future__ import annotations

import re

from channels.db import database_sync_to_async

from guest_agent.exec import Program
from guest_agent.sessions import DEFAULT_KEEP, Sessions, Started
from nexus_site.core import events
from nexus_site.core.errors import Invalid
from vms.agents import GatewayAgent
from vms.models import VM
from vms.services.programs import name_of

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

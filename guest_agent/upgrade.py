"""An agent takes another's place while its VM, its sessions and their programs go on."""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path

from guest_agent.binary import agent_path, agent_version
from guest_agent.connection import AgentConnection
from guest_agent.messages import Hello
from guest_agent.refusals import AgentRefused, meaning
from nexus_site.core.errors import Conflict


def is_outdated(hello: Hello) -> bool:
    """Whether the agent is older than the one that this Nexus has."""
    return is_older(hello.agent_version)


def is_older(version: str) -> bool:
    """Whether an agent of this version is older than the one that this Nexus has."""
    return version_number(version) < version_number(agent_version())


def version_number(version: str) -> tuple[int, ...]:
    """(0, 3, 0) of ``0.3.0``; what is no number, of whatever an agent says, counts as 0."""
    parts = version.split(".")
    return tuple(int(part) if part.isdecimal() else 0 for part in parts[:3])


async def upgrade(
    connection: AgentConnection, binary: Path | None = None, timeout: float = 120
) -> None:
    """Put this Nexus's agent (or ``binary``) in the place of the VM's, live.

    Returns when the agent is about to be replaced. The caller then closes the connection and
    makes a new one; only its hello tells that the new agent runs. ``Retryable`` while programs
    run, files are on their way or connections to ports are open, which would be lost;
    ``Conflict`` (``agent-outdated``) for an agent that cannot be replaced live.
    """
    path = binary or agent_path(connection.hello.arch)
    content = await asyncio.to_thread(path.read_bytes)
    header = {
        "op": "upgrade",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    try:
        await connection.exchange(header, timeout, content)
    except AgentRefused as refused:
        if refused.reason == "unknown-op":
            raise Conflict(
                "The VM's agent is too old to be replaced while the VM runs.",
                hint="Restart the VM: it boots with this Nexus's agent.",
                code="agent-outdated",
            ) from refused
        raise meaning(refused) from refused

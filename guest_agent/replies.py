"""What agents answer, whichever stream brings it."""

from __future__ import annotations

from typing import Any

from guest_agent.fields import number_field, text_field
from guest_agent.headers import read_header
from guest_agent.refusals import AgentRefused
from guest_agent.streams import ByteStream
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Broken, Retryable

MAX_PID = 2**31


async def read_reply(stream: ByteStream) -> dict[str, Any]:
    """The header of the agent's answer. Raises ``AgentRefused``, ``ProtocolError``."""
    reply = await read_header(stream)
    if reply.get("ok") is True:
        return reply
    problem = reply.get("error")
    fields = problem if isinstance(problem, dict) else {}
    raise AgentRefused(
        text_field(fields, "text", 1000) or "it gives no reason", text_field(fields, "code")
    )


def pid_of(reply: dict[str, Any]) -> int:
    """The process ID in the answer to ``exec``; ``ProtocolError`` where there is none."""
    return int(number_field(reply, "pid", MAX_PID))


def broken(error: ProtocolError) -> Broken:
    return Broken(f"The VM's agent broke the protocol: {error}.", code="agent-protocol")


def too_slow(what: str, seconds: float | None) -> Retryable:
    return Retryable(f"The VM's agent {what} within {seconds} s.", code="agent-timeout")

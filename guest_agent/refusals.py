"""What an agent's refusals mean for people."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError, NotFound, Retryable

UPGRADE_HINT = "`nexusctl vm agent-upgrade` replaces it while the VM runs."


class AgentRefused(Broken):
    """The agent does not do what it was asked; ``reason`` is its code for why."""

    default_code = "agent-refused"

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"The VM's agent refuses: {text}")
        self.reason = reason
        self.said = text


def meaning(refused: AgentRefused) -> NexusError:
    """The refusal as the kind of error that it is."""
    text = f"The VM's agent says: {refused.said}."
    match refused.reason:
        case "not-found":
            return NotFound(text, code="not-in-guest")
        case "conflict":
            return Conflict(text, code="guest-conflict")
        case "denied":
            return Conflict(text, code="guest-denied")
        case "full":
            return Conflict(text, hint="Free some space in the VM.", code="guest-disk-full")
        case "invalid" | "bad-header":
            return Invalid(text, code="guest-invalid")
        case "cannot-run":
            return Invalid(refused.text, code="cannot-run")
        case "busy":
            return Retryable(text, code="agent-busy")
        case "unknown-op":
            return outdated()
    return refused


def outdated() -> Conflict:
    """The agent does not know what it is asked for."""
    return Conflict("The VM's agent is too old for this.", hint=UPGRADE_HINT, code="agent-outdated")


def start_meaning(refused: AgentRefused) -> NexusError:
    """The same of a refusal to start a program."""
    if refused.reason == "invalid":
        return Invalid(refused.text, code="cannot-run")
    return meaning(refused)


@contextmanager
def explained() -> Iterator[None]:
    """Refusals within become what they mean."""
    try:
        yield
    except AgentRefused as refused:
        raise meaning(refused) from refused

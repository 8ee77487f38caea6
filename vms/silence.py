"""Agents that do not answer: when that is a silence, why it may be, and what is done about it.

A guest says nothing of its own misfortune, so the signs are read from outside: how its
connection ended, the last lines of its console, and what its clock showed last.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass

from django.conf import settings
from django.utils import timezone

from guest_agent.fields import text_field
from guest_agent.messages import Heartbeat
from vms import outcomes
from vms.console import last_words
from vms.models import VM
from vms.services import policies
from vms.states import State

CLOCK_LIMIT = 5.0  # seconds that a guest's clock may be off
CLOCK_EVERY = 60.0  # seconds between two corrections: a guest may set its clock again and again

_PANIC = re.compile(r"Kernel panic - not syncing.*")
_KILLED = re.compile(r"Out of memory: Killed process \d+ \(([^)]{1,32})\)", re.IGNORECASE)


@dataclass(frozen=True)
class Signs:
    """What is known of an agent from outside. ``ended``: why its last connection did, if it has
    none; ``drift``: how far the guest's clock was off."""

    connected: bool
    ended: str
    drift: float


class Clock:
    """A guest's clock, as its heartbeats show it."""

    def __init__(self) -> None:
        self.drift = 0.0
        self._set_at = -math.inf

    def is_to_be_set(self, heartbeat: Heartbeat, asked: float) -> bool:
        """Whether it is wrong, and was not set just now. ``asked``: when, by the host's clock."""
        self.drift = drift_of(heartbeat, asked, time.time())
        if not self.drift or time.monotonic() - self._set_at < CLOCK_EVERY:
            return False
        self._set_at = time.monotonic()
        return True


def drift_of(heartbeat: Heartbeat, asked: float, answered: float) -> float:
    """Seconds that the guest's clock is ahead of the host's (negative: behind), which asked and
    was answered at these times; 0 within what is usual."""
    if asked - CLOCK_LIMIT <= heartbeat.time <= answered + CLOCK_LIMIT:
        return 0.0
    return heartbeat.time - answered


def notice(vm: VM, silent: float, signs: Signs) -> None:
    """Say ``unreachable`` of a VM whose agent is ``silent`` for longer than it may, in seconds;
    of one that is so already, do what it wants done about that."""
    patience, longest = settings.NEXUS.heartbeat_timeout, settings.NEXUS.agent_ready_timeout
    if silent <= min(patience, longest):  # nothing can be wrong; asked each second for each VM
        return
    row = VM.objects.filter(pk=vm.pk).first()
    if row is None:
        return
    waiting = min((timezone.now() - row.state_since).total_seconds(), silent)
    if row.state == State.READY and silent > patience:
        outcomes.agent_is_silent(vm, f"no heartbeat for {silent:.0f} s{_because(vm, signs)}")
    elif row.state == State.RUNNING and waiting > longest:
        outcomes.agent_is_silent(vm, f"no hello within {waiting:.0f} s{_because(vm, signs)}")
    elif row.state == State.UNREACHABLE and silent > patience:  # a new worker listens first
        policies.act_on_silence(row)


def _because(vm: VM, signs: Signs) -> str:
    causes = [_last_words(vm), _connection(signs), _clock(signs.drift)]
    return "".join(f"; {cause}" for cause in causes if cause)


def _last_words(vm: VM) -> str:
    """What the guest's kernel said last, if that explains it; a guest may say anything."""
    for line in reversed(last_words(vm)):
        if found := _PANIC.search(line):
            return f"its console says: {_shown(found[0])}"
        if found := _KILLED.search(line):
            return f"the guest ran out of memory: its kernel killed {_shown(found[1])}"
    return ""


def _connection(signs: Signs) -> str:
    if signs.connected:
        return "the agent is connected, but does not answer"
    return signs.ended[:1].lower() + signs.ended[1:].rstrip(".")


def _clock(drift: float) -> str:
    return f"the guest's clock was {describe_drift(drift)}" if drift else ""


def describe_drift(drift: float) -> str:
    """``30 s ahead``, ``2 s behind``."""
    return f"{abs(drift):.0f} s {'ahead' if drift > 0 else 'behind'}"


def _shown(text: str) -> str:
    return text_field({"text": text}, "text")

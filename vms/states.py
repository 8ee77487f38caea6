"""The states of a VM and the one table of moves between them.

created ─▶ starting ─▶ running ─▶ ready         running: the VMM runs
              │           │ ▲       │ ▲         ready: the agent said hello
              ▼           ▼ │       ▼ │
           failed      unreachable ◀──┘         the agent does not answer
ready ⇄ paused         ready/paused ─▶ suspended ⇄ starting
anything alive, suspended ─▶ stopping ─▶ stopped    anything with a VMM ─▶ crashed
created/stopped/crashed/failed/suspended ─▶ starting

A VM stays running while its guest is provisioned. Where that fails, and is not to be overlooked,
it is shut down: running ─▶ stopping ─▶ failed. A suspended VM whose memory cannot be loaded is
suspended again (starting ─▶ suspended); its memory is given up on request (─▶ stopping).
"""

from __future__ import annotations

from django.db import models


class State(models.TextChoices):
    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    READY = "ready"
    UNREACHABLE = "unreachable"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    STOPPED = "stopped"
    CRASHED = "crashed"
    FAILED = "failed"


class Desired(models.TextChoices):
    """What people want of a VM; what it is, is its state."""

    RUNNING = "running"
    PAUSED = "paused"
    SUSPENDED = "suspended"
    STOPPED = "stopped"


#: The VMM runs and its guest may be at work.
ALIVE = frozenset({State.RUNNING, State.READY, State.UNREACHABLE, State.PAUSED})
#: There is, or may be, a VMM process.
WITH_VMM = ALIVE | {State.STARTING, State.STOPPING}
#: There is no VMM; the VM may be started or deleted.
AT_REST = frozenset({State.CREATED, State.STOPPED, State.CRASHED, State.FAILED, State.SUSPENDED})
#: Something is under way; an operation or the supervisor will move it on.
TRANSIENT = frozenset({State.STARTING, State.STOPPING})

#: to → the states it may be reached from.
MOVES: dict[State, frozenset[State]] = {
    State.STARTING: AT_REST,
    State.RUNNING: frozenset({State.STARTING}),
    State.READY: frozenset({State.RUNNING, State.UNREACHABLE, State.PAUSED}),
    State.UNREACHABLE: frozenset({State.RUNNING, State.READY}),
    State.PAUSED: frozenset({State.READY}),
    State.SUSPENDED: frozenset({State.READY, State.PAUSED, State.STARTING}),
    State.STOPPING: ALIVE | {State.STARTING, State.SUSPENDED},
    State.STOPPED: frozenset({State.STOPPING}),
    State.CRASHED: WITH_VMM,
    State.FAILED: frozenset({State.STARTING, State.STOPPING}),
}

#: How each state looks: a colour of the dashboard's kit, and words for people.
LOOKS: dict[State, tuple[str, str]] = {
    State.CREATED: ("secondary", "Made, never started"),
    State.STARTING: ("azure", "The VMM is being started"),
    State.RUNNING: ("blue", "The guest boots; its agent has not called yet"),
    State.READY: ("green", "The agent answers"),
    State.UNREACHABLE: ("orange", "The VMM runs, the agent does not answer"),
    State.PAUSED: ("yellow", "Its CPUs stand still"),
    State.SUSPENDED: ("purple", "Its memory is on disk"),
    State.STOPPING: ("azure", "Being shut down"),
    State.STOPPED: ("secondary", "Shut down on request"),
    State.CRASHED: ("red", "The VMM ended unasked"),
    State.FAILED: ("red", "It could not be started"),
}

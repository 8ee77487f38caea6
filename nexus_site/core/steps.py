"""Operations are made of steps; this module runs them.

A ``Step`` is named, safe to repeat and knows its undo. ``run`` goes through a plan,
skips what is already satisfied, writes progress into the operation's row, and on a
failure unwinds what this operation did, newest first. A run that was cut short (the
process died) starts again at the first step that is not recorded as done.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from django.db import transaction
from django.utils import timezone

from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError, as_nexus_error
from nexus_site.core.models import Operation

log = logging.getLogger(__name__)

PROGRESS_INTERVAL = 0.25  # seconds between two writes of a step's progress


class Cancelled(Conflict):
    """The operation was asked to stop, and does."""


class LeaseLost(Exception):
    """Another worker has taken the operation over: stop at once and touch nothing."""


@dataclass
class Run:
    """What a step may use: its operation, its parameters, what earlier steps have made."""

    operation: Operation
    _written: float = field(default=0.0, repr=False)

    @property
    def params(self) -> dict[str, Any]:
        """What the operation was asked to do; never changes."""
        return dict(self.operation.params)

    @property
    def made(self) -> dict[str, Any]:
        """What earlier steps have made (JSON, survives a restart). Write with ``keep``."""
        return dict(self.operation.context)

    def keep(self, **values: Any) -> None:
        """Remember ``values`` durably before going on; later steps and attempts see them."""
        self.operation.context |= values
        _save(self.operation, "context")

    def progress(self, fraction: float | None = None, note: str = "") -> None:
        """Report how far the step is (0.0 to 1.0). Raises ``Cancelled`` when asked to stop."""
        step = self.operation.current_step
        if step is not None and step["state"] == "running":
            if fraction is not None:
                step["progress"] = round(min(max(fraction, 0.0), 1.0), 3)
            step["note"] = note or step["note"]
        if time.monotonic() - self._written >= PROGRESS_INTERVAL:
            self._written = time.monotonic()
            _save(self.operation, "steps")
            events.append("operation.progressed", self.operation)
            self.check()

    def check(self) -> None:
        """Raise ``Cancelled`` when somebody asked the operation to stop."""
        row = Operation.objects.values("cancel_requested", "deadline").get(pk=self.operation.pk)
        if row["cancel_requested"]:
            raise Cancelled("The operation was cancelled.", code="cancelled")
        if row["deadline"] < timezone.now():
            raise Conflict(
                "The operation took longer than it may.",
                hint="Look at the step that took so long, then try again.",
                code="deadline",
            )


Do = Callable[[Run], str | None]


@dataclass(frozen=True)
class Step:
    """One step of a plan.

    ``do`` returns a short note for people, or nothing. ``done`` returns a note when there
    is nothing to do: the step is then skipped and says so. ``undo`` takes back what ``do``
    did and must cope with its having done nothing; it returns a note where that is to stay, and
    the step is done then. ``keeps``: once this step is through,
    nothing before it is undone. ``foresee`` returns what a dry run says of a step that would
    run; it starts nothing.
    """

    name: str
    title: str
    do: Do
    done: Do | None = None
    undo: Do | None = None
    keeps: bool = False
    foresee: Do | None = None


Plan = Sequence[Step]


def outline(plan: Plan) -> list[dict[str, Any]]:
    """The steps as kept in the operation's row before any has run."""
    return [
        {
            "name": step.name,
            "title": step.title,
            "state": "pending",
            "progress": 0.0,
            "note": "",
            "started_at": None,
            "ended_at": None,
            "seconds": None,
            "error": None,
        }
        for step in plan
    ]


def run(plan: Plan, operation: Operation) -> None:
    """Run ``plan`` to its end. Raises the ``NexusError`` of the step that failed, undone.

    That a step has ended is written with the beginning of the next one; of the last one, by
    whoever records the end of the operation.
    """
    state = Run(operation)
    if [step["name"] for step in operation.steps] != [step.name for step in plan]:
        operation.steps = outline(plan)
    for step, record in zip(plan, operation.steps, strict=True):
        if record["state"] in ("done", "skipped"):
            continue
        try:
            state.check()
            _run_one(step, record, state)
        except LeaseLost:
            raise
        except Exception as failure:
            error = as_nexus_error(failure)
            if not isinstance(failure, NexusError):
                log.exception("step %s of %s failed", step.name, operation)
            _fail(record, error)
            _write(state, "steps")
            unwind(plan, state)
            raise error from failure


def _run_one(step: Step, record: dict[str, Any], state: Run) -> None:
    began = time.monotonic()
    record |= {"state": "running", "started_at": _now(), "error": None, "progress": 0.0}
    _write(state, "steps")
    note = step.done(state) if step.done else None
    if note is not None:
        record |= {"state": "skipped", "note": note}
    else:
        record["note"] = step.do(state) or record["note"]
        record["state"] = "done"
    record |= {
        "progress": 1.0,
        "ended_at": _now(),
        "seconds": round(time.monotonic() - began, 3),
    }


def unwind(plan: Plan, state: Run) -> None:
    """Undo, newest first, what this operation did since its last step that ``keeps``."""
    for step, record in reversed(list(zip(plan, state.operation.steps, strict=True))):
        if step.keeps and record["state"] == "done":
            break
        if step.undo is None or record["state"] not in ("done", "failed", "running"):
            continue
        failed = record["state"] == "failed"
        try:
            left = step.undo(state)
        except Exception as failure:
            log.exception("undo of step %s of %s failed", step.name, state.operation)
            record["note"] = f"Could not be undone: {as_nexus_error(failure).text}"
        else:
            if left is not None:
                record["note"] = left
            elif not failed:
                record["state"] = "undone"
        _write(state, "steps")


def _fail(record: dict[str, Any], error: NexusError) -> None:
    record |= {"state": "failed", "error": error.record(), "ended_at": _now()}


@transaction.atomic
def _write(state: Run, *fields: str) -> None:
    _save(state.operation, *fields)
    events.append("operation.progressed", state.operation)


def _save(operation: Operation, *fields: str) -> None:
    """Write ``fields``, unless the lease has gone to somebody else meanwhile."""
    values = {name: getattr(operation, name) for name in fields}
    mine = Operation.objects.filter(pk=operation.pk, lease_owner=operation.lease_owner)
    if not mine.update(**values):
        raise LeaseLost(str(operation))


def _now() -> str:
    return timezone.now().isoformat()

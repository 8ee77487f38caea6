"""Long-running work: opened by services, run by workers, repaired by the sweep.

    queued ──claim──▶ running ──▶ succeeded | failed | cancelled
       ▲                 │
       └── lease expired ┘   (the worker died: the next one resumes at the first open step)

``open_operation`` is called inside the transaction that records the wish; the queue gets
the ID when that commits. Huey may lose a message or deliver it late: ``sweep`` finds what
nobody works on and nudges it again, so the row, not the message, is the record.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import psutil
from django.db import close_old_connections, models, transaction
from django.db.models.functions import Coalesce
from django.utils import timezone

from nexus_site.core import events, steps
from nexus_site.core.errors import Broken, Conflict, NexusError, as_nexus_error, from_record
from nexus_site.core.ids import decode
from nexus_site.core.life import lives
from nexus_site.core.models import Operation

log = logging.getLogger(__name__)

LEASE = timedelta(seconds=30)
RENEW_EVERY = 8.0  # seconds
NUDGE_AGAIN_AFTER = timedelta(seconds=5)
MAX_ATTEMPTS = 5
DEFAULT_DEADLINE = timedelta(minutes=30)


@dataclass(frozen=True)
class Kind:
    """What an operation of this kind does, and what to do when it has failed for good."""

    plan: Callable[[Operation], steps.Plan]
    on_failure: Callable[[Operation, NexusError], None] | None = None


_kinds: dict[str, Kind] = {}
_nudge: Callable[[str], None] | None = None


def register(
    kind: str,
    plan: Callable[[Operation], steps.Plan],
    on_failure: Callable[[Operation, NexusError], None] | None = None,
) -> None:
    """Teach workers what ``kind`` (``vm.start``) is. Called by each app's ``tasks.py``."""
    _kinds[kind] = Kind(plan, on_failure)


def send_nudges_to(nudge: Callable[[str], None]) -> None:
    """Set what puts an operation's ID on the queue (``core.tasks``)."""
    global _nudge
    _nudge = nudge


def open_operation(
    kind: str,
    title: str,
    *,
    subject: models.Model | None = None,
    params: dict[str, Any] | None = None,
    deadline: timedelta = DEFAULT_DEADLINE,
    parent: Operation | None = None,
) -> Operation:
    """Record work to be done and nudge a worker once the transaction commits.

    A child (``parent`` given) is not queued: its parent runs it (``run_child``).
    """
    operation = Operation(
        kind=kind,
        title=title,
        actor=events.current_actor(),
        params=params or {},
        deadline=timezone.now() + deadline,
        parent=parent,
    )
    if subject is not None:
        operation.subject_kind = subject._meta.model_name or ""
        operation.subject_id = subject.pk
        operation.subject_name = getattr(subject, "name", "")
    operation.steps = steps.outline(_kinds[kind].plan(operation))
    operation.save(force_insert=True)
    events.append("operation.opened", operation, operation_kind=kind)
    if parent is None:
        transaction.on_commit(lambda: nudge(operation))
    return operation


def open_operations(
    subject: models.Model | None = None, *, children: bool = False
) -> models.QuerySet[Operation]:
    """Operations that have not ended, oldest first; with ``subject``, those on it. ``children``:
    also those that are parts of others."""
    states = [Operation.State.QUEUED, Operation.State.RUNNING]
    rows = Operation.objects.filter(state__in=states).order_by("created_at")
    if not children:
        rows = rows.filter(parent=None)
    if subject is None:
        return rows
    return rows.filter(subject_kind=subject._meta.model_name, subject_id=subject.pk)


class _Rehearsed(Exception):
    """Carries the plan out of the transaction that is rolled back."""


def rehearse(call: Callable[[], Operation | models.Model | None]) -> dict[str, Any]:
    """What a service call would do (``?dry_run=1``); changes nothing.

    The call is made for real, so that every rule speaks, in a transaction that is rolled
    back. Raises what the call raises.
    """
    outcome: dict[str, Any] = {"dry_run": True, "title": "", "steps": []}
    try:
        with transaction.atomic():
            made = call()
            if isinstance(made, Operation):
                outcome["title"] = made.title
                outcome["steps"] = _rows(made)
            elif made is not None:
                outcome["title"] = str(made)
            raise _Rehearsed
    except _Rehearsed:
        return outcome


def _rows(operation: Operation) -> list[dict[str, Any]]:
    """The steps of an operation as a plan: which would run, which are satisfied, and why."""
    run = steps.Run(operation)
    rows = []
    for step in _kinds[operation.kind].plan(operation):
        note = step.done(run) if step.done else None
        action = "run" if note is None else "skip"
        if note is None and step.foresee:
            note = step.foresee(run)
        rows.append({"name": step.name, "title": step.title, "action": action, "note": note or ""})
    return rows


def nudge(operation: Operation) -> None:
    """Tell a worker that there is something to do; losing the message does no harm."""
    if _nudge is not None:
        _nudge(str(operation.id))


def lease_owner() -> str:
    """This thread's name as a lease holder: host, process, its start, thread."""
    started = psutil.Process().create_time()
    return f"{socket.gethostname()}:{os.getpid()}:{started:.2f}:{threading.get_ident()}"[:80]


def claim(operation_id: int) -> Operation | None:
    """Take the operation over if it is free: never run, or its lease has run out."""
    now = timezone.now()
    free = models.Q(state=Operation.State.QUEUED) | models.Q(
        state=Operation.State.RUNNING, lease_until__lt=now
    )
    owner = lease_owner()
    taken = Operation.objects.filter(free, pk=operation_id, not_before__lte=now).update(
        state=Operation.State.RUNNING,
        lease_owner=owner,
        lease_until=now + LEASE,
        attempt=models.F("attempt") + 1,
        started_at=Coalesce("started_at", now),
    )
    return Operation.objects.get(pk=operation_id) if taken else None


def execute(operation_id: int) -> None:
    """Claim an operation and run it to its end; what the queue's task does."""
    operation = claim(operation_id)
    if operation is None:
        return
    if operation.attempt > 1:
        operation.note = f"Resumed after an interruption (attempt {operation.attempt})."
        Operation.objects.filter(pk=operation.pk).update(note=operation.note)
    with events.acting(operation.actor, operation), _renewing(operation):
        try:
            _run(operation)
        except steps.LeaseLost:
            log.warning("%s: the lease went to another worker", operation)
        except NexusError as error:
            log.info("%s failed: %s", operation, error.text)


def run_child(
    parent: steps.Run, key: str, open_child: Callable[[Operation], Operation]
) -> Operation:
    """Run another operation as a part of this one, now, in this worker.

    ``open_child`` opens it (with ``parent=``); after an interruption the same child goes
    on, found by ``key`` in the parent's context. Raises what the child failed with.
    """
    child_id = parent.made.get(key)
    child = Operation.objects.filter(pk=decode(child_id)).first() if child_id else None
    if child is None:
        with transaction.atomic():
            child = open_child(parent.operation)
            parent.keep(**{key: str(child.id)})
    return go_on_with_child(parent.operation, child)


def go_on_with_child(parent: Operation, child: Operation) -> Operation:
    """Run an open child of ``parent`` to its end, in this thread; nothing if it has succeeded.
    Raises what the child failed with."""
    if child.state == Operation.State.SUCCEEDED:
        return child
    if child.ended:
        raise from_record(child.error)
    Operation.objects.filter(pk=child.pk).update(
        state=Operation.State.RUNNING,
        lease_owner=parent.lease_owner,
        lease_until=timezone.now() + LEASE,
        attempt=models.F("attempt") + 1,
        started_at=Coalesce("started_at", timezone.now()),
    )
    child.refresh_from_db()
    with events.acting(child.actor, child), _renewing(child):
        _run(child)
    return child


def _run(operation: Operation) -> None:
    kind = _kinds[operation.kind]
    try:
        if operation.attempt > MAX_ATTEMPTS:
            raise _worn_out(operation, kind)
        steps.run(kind.plan(operation), operation)
    except steps.LeaseLost:
        raise
    except Exception as failure:
        error = as_nexus_error(failure)
        if not isinstance(failure, NexusError):
            log.exception("%s failed", operation)
        if kind.on_failure is not None:
            kind.on_failure(operation, error)
        cancelled = isinstance(failure, steps.Cancelled)
        finish(
            operation,
            Operation.State.CANCELLED if cancelled else Operation.State.FAILED,
            error=error,
        )
        raise error from failure
    finish(operation, Operation.State.SUCCEEDED)


def _worn_out(operation: Operation, kind: Kind) -> NexusError:
    steps.unwind(kind.plan(operation), steps.Run(operation))
    return Broken(
        f"“{operation.title}” was interrupted {MAX_ATTEMPTS} times and was undone.",
        hint="Something kills the worker while it runs; look at the server log.",
        code="interrupted",
    )


@transaction.atomic
def finish(operation: Operation, state: str, error: NexusError | None = None) -> None:
    """Record how the operation ended."""
    operation.state = state
    operation.ended_at = timezone.now()
    operation.error = error.record() if error else {}
    operation.result = operation.context
    Operation.objects.filter(pk=operation.pk, lease_owner=operation.lease_owner).update(
        state=state,
        ended_at=operation.ended_at,
        error=operation.error,
        result=operation.result,
        steps=operation.steps,
        lease_until=None,
    )
    events.append("operation.ended", operation, state=state, operation_kind=operation.kind)


@transaction.atomic
def cancel(operation: Operation) -> None:
    """Ask an operation to stop; it does at its next step or progress report, and is undone.

    Raises ``Conflict`` when it has ended.
    """
    if operation.ended:
        raise Conflict(
            f"“{operation.title}” has {operation.state} already.", code="operation-ended"
        )
    queued = Operation.objects.filter(pk=operation.pk, state=Operation.State.QUEUED)
    Operation.objects.filter(pk=operation.pk).update(cancel_requested=True)
    events.append("operation.cancel_requested", operation)
    if queued.exists():
        transaction.on_commit(lambda: nudge(operation))


def sweep(everything_is_mine: bool = False) -> int:
    """Nudge what nobody works on: queued too long, or its worker has died. Returns how many.

    ``everything_is_mine``: this process has just started as the only worker of its
    host, so leases of workers that no longer exist end now instead of running out.
    """
    now = timezone.now()
    grace = timedelta(0) if everything_is_mine else NUDGE_AGAIN_AFTER
    if everything_is_mine:
        _free_leases_of_the_dead(now)
    waiting = Operation.objects.filter(parent=None, not_before__lte=now).filter(
        models.Q(state=Operation.State.QUEUED, created_at__lt=now - grace)
        | models.Q(state=Operation.State.RUNNING, lease_until__lt=now)
    )
    found = list(waiting.order_by("created_at"))
    for operation in found:
        nudge(operation)
    return len(found)


def _free_leases_of_the_dead(now: Any) -> None:
    for operation in Operation.objects.filter(state=Operation.State.RUNNING):
        if not _holder_lives(operation.lease_owner):
            Operation.objects.filter(
                pk=operation.pk, lease_owner=operation.lease_owner, state=Operation.State.RUNNING
            ).update(lease_until=now - timedelta(seconds=1))


def _holder_lives(owner: str) -> bool:
    host, pid, started, _ = [*owner.rsplit(":", 3), "", "", ""][:4]
    if host != socket.gethostname() or not pid.isdigit():
        return bool(owner)
    return lives(int(pid), float(started))


@contextmanager
def _renewing(operation: Operation) -> Iterator[None]:
    """Keep the lease while the caller works, from a thread of its own."""
    over = threading.Event()

    def renew() -> None:
        while not over.wait(RENEW_EVERY):
            Operation.objects.filter(
                pk=operation.pk, lease_owner=operation.lease_owner, state=Operation.State.RUNNING
            ).update(lease_until=timezone.now() + LEASE)
            close_old_connections()

    thread = threading.Thread(target=renew, name=f"lease-{operation.ref}", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()

"""The event log: appended in the caller's transaction, replayed by anyone from any number.

A row is history, outbox and source of everything live at once. Browsers and API clients
get "this changed" with a sequence number; one that reconnects asks for what came after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from django.db import models

from nexus_site.core.ids import NexusID
from nexus_site.core.models import Event, Operation

SYSTEM = "system"

_actor: ContextVar[str] = ContextVar("nexus_actor", default=SYSTEM)
_operation: ContextVar[NexusID | None] = ContextVar("nexus_operation", default=None)


def current_actor() -> str:
    """Who is doing what happens now: ``user:NAME``, ``token:NAME`` or ``system``."""
    return _actor.get()


def current_operation() -> NexusID | None:
    """The ID of the operation on whose behalf the caller runs."""
    return _operation.get()


@contextmanager
def acting(actor: str, operation: Operation | None = None) -> Iterator[None]:
    """Everything recorded inside is put down to ``actor`` (and ``operation``)."""
    actor_token = _actor.set(actor)
    operation_token = _operation.set(operation.id if operation else None)
    try:
        yield
    finally:
        _actor.reset(actor_token)
        _operation.reset(operation_token)


def append(kind: str, subject: models.Model, /, **data: Any) -> Event:
    """Add one line about ``subject`` to the log, in the caller's transaction.

    ``kind`` is ``<thing>.<what happened>``, such as ``vm.moved``; ``data`` must be JSON.
    """
    return Event.objects.create(
        kind=kind,
        actor=current_actor(),
        subject_kind=subject._meta.model_name or "",
        subject_id=subject.pk,
        subject_name=getattr(subject, "name", ""),
        operation_id=current_operation(),
        data=data,
    )


def after(seq: int, limit: int = 500) -> list[Event]:
    """The events after number ``seq``, oldest first, at most ``limit``."""
    return list(Event.objects.filter(seq__gt=seq).order_by("seq")[:limit])


def last_seq() -> int:
    """The number of the newest event; 0 when there is none."""
    return Event.objects.aggregate(last=models.Max("seq"))["last"] or 0

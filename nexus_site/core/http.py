"""How the JSON API carries out a change: dry run, idempotency, waiting, 202 and Location.

An endpoint that changes something resolves what it is about and hands a service call to
``carry_out``, which does the rest the same way everywhere.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TypeVar

from django.db import IntegrityError, connection, models, transaction
from django.http import HttpRequest, HttpResponse
from django.urls import reverse
from ninja import Schema
from ninja.responses import Response

from nexus_site.core import events, operations
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.models import Operation
from nexus_site.core.schemas import ChangeQuery, OperationOut, Plan

T = TypeVar("T")
Change = Callable[[], Operation | models.Model | None]

POLL_INTERVAL = 0.01  # seconds between two looks at an operation that is waited for
POLL_INTERVAL_MOST = 1.0  # and when it takes longer
POLL_SHARE = 0.05  # of the time waited so far: whoever is waited for needs the CPU more
MAX_KEY = 200
#: What an endpoint that opens an operation answers, for the OpenAPI document.
STARTED = {200: OperationOut | Plan, 202: OperationOut}


def carry_out(
    request: HttpRequest,
    query: ChangeQuery,
    change: Change,
    *,
    shown_as: type[Schema] | None = None,
    status: int = 200,
    content: str | None = None,
    made_by: Callable[[Operation], models.Model | None] | None = None,
) -> HttpResponse:
    """Make the service call ``change`` and answer with what came of it.

    An operation is answered with 202 and its Location, or with 200 once it has ended
    within ``query.wait``. Another row is shown as ``shown_as``; without one the answer is
    204. With ``query.dry_run`` the answer is the plan, and nothing is changed. ``content``
    stands for a body that has been read already, such as its checksum. ``made_by`` finds the row
    that is there as soon as an operation was opened, and is the answer in its place.
    """
    if query.dry_run:
        return _json(Plan(**operations.rehearse(change)), 200)
    made, replayed = _once(request, change, content)
    row = made_by(made) if made_by and isinstance(made, Operation) else None
    if isinstance(made, Operation) and row is None:
        return _operation(made, query.wait, replayed=replayed)
    made = row or made
    if made is None or shown_as is None:
        return HttpResponse(status=204)
    return _replayed(_json(shown_as.from_orm(made), status), replayed)


def poll(look: Callable[[], T], enough: Callable[[T], bool], seconds: float) -> T:
    """What ``look`` gives as soon as that is ``enough``, at the latest after ``seconds``."""
    began = time.monotonic()
    while not enough(found := look()) and (waited := time.monotonic() - began) < seconds:
        time.sleep(min(max(waited * POLL_SHARE, POLL_INTERVAL), POLL_INTERVAL_MOST))
    return found


def wait_for_end(operation: Operation, seconds: float) -> Operation:
    """The operation, with its children, when it has ended or after ``seconds``."""

    row = Operation.objects.order_by().filter(pk=operation.pk).values_list("state")
    sql, words = row.query.sql_with_params()  # once: what is waited for needs the CPU more

    def look() -> bool:
        with connection.cursor() as cursor:
            cursor.execute(sql, words)
            found = cursor.fetchone()
        operation.state = found[0] if found else operation.state
        return found is None or operation.ended

    poll(look, bool, seconds)
    return Operation.objects.prefetch_related("children").get(pk=operation.pk)


def _operation(operation: Operation, wait: float, *, replayed: bool) -> HttpResponse:
    operation = wait_for_end(operation, wait)
    response = _json(OperationOut.from_orm(operation), 200 if operation.ended else 202)
    response.headers["Location"] = reverse("api:get_operation", args=[operation.ref])
    return _replayed(response, replayed)


def _replayed(response: Response, replayed: bool) -> Response:
    """The answer, marked if it is that of an earlier request."""
    if replayed:
        response.headers["Idempotency-Replayed"] = "true"
    return response


def _json(answer: Schema, status: int) -> Response:
    return Response(answer.model_dump(), status=status)


def _once(
    request: HttpRequest, change: Change, content: str | None
) -> tuple[Operation | models.Model | None, bool]:
    """Make the change, or find the operation that the same request opened before.

    The header ``Idempotency-Key`` marks a request as the same: same caller, method, path
    and key. Raises ``Conflict`` when the body is another one.
    """
    key = request.headers.get("Idempotency-Key", "")
    if not key:
        return change(), False
    if len(key) > MAX_KEY:
        raise Invalid(f"An Idempotency-Key has at most {MAX_KEY} characters.", code="key")
    mark = _digest(events.current_actor(), request.method or "", request.path, key)
    body = request.body.decode("latin-1") if content is None else content
    full_mark = f"{mark}:{_digest(body)}"
    try:
        with transaction.atomic():
            earlier = _opened_before(mark, full_mark)
            if earlier is not None:
                return earlier, True
            made = change()
            if isinstance(made, Operation):
                Operation.objects.filter(pk=made.pk).update(idempotency_key=full_mark)
            return made, False
    except IntegrityError:
        earlier = _opened_before(mark, full_mark)
        if earlier is None:
            raise
        return earlier, True


def _opened_before(mark: str, full_mark: str) -> Operation | None:
    # From “mark:” up to “mark;”, the next character: what an index finds, unlike LIKE.
    marked = Operation.objects.filter(idempotency_key__range=(f"{mark}:", f"{mark};"))
    earlier = marked.first()
    if earlier is not None and earlier.idempotency_key != full_mark:
        raise Conflict(
            "This Idempotency-Key was used before with another body.",
            hint="Use a new key for a new request.",
            code="idempotency-key-reused",
        )
    return earlier


def _digest(*parts: str) -> str:
    """48 hexadecimal digits that stand for ``parts``."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:48]

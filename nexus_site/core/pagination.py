"""Lists in pages that neither skip nor repeat a row while rows come and go.

A cursor names the last row seen (its sorting value and its key), not a count of rows: a
page costs one query whatever came before it.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Any, TypedDict, TypeVar, cast

from django.core.exceptions import ValidationError
from django.db import models
from django.db.models import Model, Q, QuerySet
from ninja import Field, Schema

from nexus_site.core.errors import Invalid
from nexus_site.core.ids import NexusID

M = TypeVar("M", bound=Model)
MAX_LIMIT = 200


class PageQuery(Schema):
    """Which part of a list, in which order."""

    cursor: str = Field("", max_length=400, description="The next_cursor of the page before.")
    limit: int = Field(50, ge=1, le=MAX_LIMIT)
    order_by: str = Field("", description="A field's name, with “-” before it to turn it round.")


class Slice(TypedDict):
    """What ``schemas.Page`` shows."""

    items: list[Any]
    next_cursor: str | None


def paginate(rows: QuerySet[M], query: PageQuery, *order_fields: str) -> Slice:
    """The page of ``rows`` that ``query`` asks for.

    ``order_fields`` are what it may be ordered by; the first one (``-`` for newest first)
    is the default. Raises ``Invalid`` for another order or a cursor that is not ours.
    """
    order = _order(query, order_fields)
    backwards, field = order.startswith("-"), order.removeprefix("-")
    key = rows.model._meta.pk.name
    sign = "-" if backwards else ""
    if query.cursor:
        rows = rows.filter(_beyond(rows.model, query.cursor, order))
    found = list(rows.order_by(order, f"{sign}{key}")[: query.limit + 1])
    items = found[: query.limit]
    more = len(found) > query.limit
    return {"items": items, "next_cursor": _cursor(items[-1], order, field) if more else None}


def _order(query: PageQuery, fields: tuple[str, ...]) -> str:
    order = query.order_by or fields[0]
    names = [field.removeprefix("-") for field in fields]
    if order.removeprefix("-") not in names:
        raise Invalid(
            f"This list cannot be ordered by “{order[:60]}”.",
            hint=f"It can be ordered by {', '.join(names)}.",
            code="order",
        )
    return order


def _cursor(row: Model, order: str, field: str) -> str:
    value = getattr(row, field)
    if isinstance(value, NexusID):
        value = str(value)
    elif not isinstance(value, int | str):
        value = value.isoformat()
    text = json.dumps([order, value, int(row.pk)], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def _beyond(model: type[Model], cursor: str, order: str) -> Q:
    """The condition for rows after the one that ``cursor`` names."""
    field = order.removeprefix("-")
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        written_for, raw, key = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
        value = cast("models.Field[Any, Any]", model._meta.get_field(field)).to_python(raw)
        key = int(key)
    except (ValueError, TypeError, binascii.Error, ValidationError):
        written_for = None
    if written_for != order:
        raise Invalid(
            "This cursor does not belong to this list and order.",
            hint="Leave it out to start again from the beginning.",
            code="cursor",
        )
    beyond = "lt" if order.startswith("-") else "gt"
    return Q(**{f"{field}__{beyond}": value}) | Q(**{field: value, f"pk__{beyond}": key})

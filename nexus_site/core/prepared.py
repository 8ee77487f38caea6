"""Queries whose SQL is made up once.

The ORM takes several times as long over making up a small query as SQLite takes over answering it.
That is felt where a request is otherwise short, and asked for often: who calls, and which VM.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.db import models

M = TypeVar("M", bound=models.Model)


class Prepared(Generic[M]):
    """Finds one row of ``rows()`` by what its ``field`` is; ``example`` is any such value.

    ``rows`` is called once, and may defer fields.
    """

    def __init__(self, rows: Callable[[], models.QuerySet[M]], field: str, example: Any) -> None:
        self._rows, self._field, self._example = rows, field, example

    def find(self, value: Any) -> M | None:
        """The row, or None where there is none."""
        model, sql, parameters = self._query
        return next(iter(model._default_manager.raw(sql, (*parameters, value))), None)

    @cached_property
    def _query(self) -> tuple[type[M], str, tuple[Any, ...]]:
        """The model, the SQL, and what goes before the value, which is compared last."""
        rows = self._rows().order_by().filter(**{self._field: self._example})
        sql, parameters = rows.query.sql_with_params()
        return rows.model, sql, parameters[:-1]

"""Lists for people: text filter, state chips with counts, sorting and pages, all in the URL.

Parameters: ``q`` (text, or an ID), ``state``, ``sort`` (a column, ``-`` for descending),
``page``. What they say that the list does not know is ignored: URLs outlive versions.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from django.core.paginator import Page, Paginator
from django.db.models import Count, Model, Q, QuerySet
from django.http import HttpRequest

from nexus_site.core.ids import decode, is_id

M = TypeVar("M", bound=Model)
V = TypeVar("V")
PAGE_SIZE = 25


@dataclass(frozen=True)
class Chip:
    """One choice of the state filter; ``value`` is empty for “all”."""

    value: str
    label: str
    count: int
    active: bool
    url: str


@dataclass(frozen=True)
class Heading:
    """A column's header: where a click on it leads and how it is sorted now."""

    label: str
    url: str
    direction: str  # ascending, descending or none: the values of aria-sort
    hides: str


@dataclass(frozen=True)
class Column:
    """A column of a list; ``order_by`` makes it sortable, ``hides`` is the class of its cells."""

    label: str
    order_by: str = ""
    hides: str = ""


class _Addressed:
    """What a list's address says, and the addresses of the same list seen otherwise."""

    page: Page[Any]
    columns: Mapping[str, Column]

    def __init__(self, request: HttpRequest, states: Iterable[str], default_sort: str = "") -> None:
        self.q = request.GET.get("q", "").strip()[:100]
        self.state = request.GET.get("state", "")
        self._states = list(states)
        if self.state not in self._states:
            self.state = ""
        self._request, self._default_sort = request, default_sort
        self.sort = request.GET.get("sort", default_sort)

    def _sortable(self, columns: Mapping[str, Column]) -> None:
        """Sorted by one of ``columns``; what is asked for otherwise is ignored."""
        self.columns = columns
        if not columns.get(self.sort.removeprefix("-"), Column("")).order_by:
            self.sort = self._default_sort

    @property
    def headings(self) -> list[Heading]:
        return [self._heading(name, column) for name, column in self.columns.items()]

    def _heading(self, name: str, column: Column) -> Heading:
        if not column.order_by:
            return Heading(column.label, "", "none", column.hides)
        active = self.sort.removeprefix("-") == name
        down = self.sort.startswith("-")
        direction = ("descending" if down else "ascending") if active else "none"
        url = self.url(sort=f"-{name}" if active and not down else name, page="")
        return Heading(column.label, url, direction, column.hides)

    @property
    def narrowed(self) -> bool:
        """Whether a filter hides rows."""
        return bool(self.q or self.state)

    @property
    def previous_url(self) -> str:
        return self.url(page=self.page.number - 1) if self.page.has_previous() else ""

    @property
    def next_url(self) -> str:
        return self.url(page=self.page.number + 1) if self.page.has_next() else ""

    @property
    def kept(self) -> list[tuple[str, str]]:
        """The parameters that the text filter's form has to send along."""
        query = self._request.GET
        return [(name, str(query[name])) for name in query if name not in ("q", "page")]

    @property
    def plain_url(self) -> str:
        """The list without any filter."""
        return self._request.path

    def url(self, **changes: Any) -> str:
        """This list's address with some parameters changed; empty ones are left out."""
        query = self._request.GET.copy()
        for name, value in changes.items():
            query[name] = str(value)
        for name in [name for name, value in query.items() if not value]:
            del query[name]
        if query.get("sort") == self._default_sort:
            del query["sort"]
        return f"{self._request.path}?{query.urlencode()}" if query else self._request.path

    def _chips(self, counts: Mapping[str, int]) -> list[Chip]:
        """“All” and every state that some row is in, each with its number of rows."""
        every = Chip("", "All", sum(counts.values()), not self.state, self.url(state="", page=""))
        return [every] + [
            Chip(name, name, counts.get(name, 0), self.state == name, self.url(state=name, page=""))
            for name in self._states
            if counts.get(name) or self.state == name
        ]


class Listing(_Addressed, Generic[M]):
    """One page of ``rows`` as the request's query string asks for it.

    A constant number of queries: the rows of the page, their number, the counts of states.
    """

    def __init__(
        self,
        request: HttpRequest,
        rows: QuerySet[M],
        *,
        columns: Mapping[str, Column],
        sort: str,
        search: Iterable[str] = ("name",),
        search_ids: Iterable[str] = ("pk",),
        states: Iterable[str] = (),
        state_field: str = "state",
        page_size: int = PAGE_SIZE,
    ) -> None:
        super().__init__(request, states, sort)
        self._sortable(columns)
        self._page_size, self._state_field = page_size, state_field
        self._found = rows.filter(_matching(self.q, search, search_ids)) if self.q else rows

    @cached_property
    def page(self) -> Page[M]:  # type: ignore[override]
        """The rows to show; a page number beyond the end is the last page."""
        rows = self._found
        if self.state:
            rows = rows.filter(**{self._state_field: self.state})
        backwards, name = self.sort.startswith("-"), self.sort.removeprefix("-")
        field = self.columns[name].order_by
        rows = rows.order_by(f"-{field}" if backwards else field, "pk")
        return Paginator(rows, self._page_size).get_page(self._request.GET.get("page"))

    @cached_property
    def chips(self) -> list[Chip]:
        """“All” and every state that some row is in, each with its number of rows."""
        if not self._states:
            return []
        pairs = self._found.order_by().values_list(self._state_field).annotate(n=Count("pk"))
        return self._chips({str(value): int(number) for value, number in pairs})


class ValueListing(_Addressed, Generic[V]):
    """The same for ``values`` that are in memory already: filtered by text and state, in pages.

    ``words`` gives what the text filter looks at, ``state_of`` the state that the chips count.
    With ``columns`` they are sorted by what ``key`` gives for a column's ``order_by`` (None is
    the least), else they stay in their order.
    """

    def __init__(
        self,
        request: HttpRequest,
        values: Iterable[V],
        *,
        words: Callable[[V], str],
        states: Iterable[str] = (),
        state_of: Callable[[V], str] = lambda value: "",
        columns: Mapping[str, Column] | None = None,
        sort: str = "",
        key: Callable[[V, str], Any] = lambda value, field: None,
        page_size: int = PAGE_SIZE,
    ) -> None:
        super().__init__(request, states, sort)
        asked = self.q.casefold().split()
        found = [
            value for value in values if all(part in words(value).casefold() for part in asked)
        ]
        counts = Counter(state_of(value) for value in found)
        self.chips = self._chips(counts) if self._states else []
        shown = [value for value in found if self.state in ("", state_of(value))]
        if columns:
            self._sortable(columns)
            field = columns[self.sort.removeprefix("-")].order_by
            shown.sort(
                key=lambda value: _none_first(key(value, field)), reverse=self.sort.startswith("-")
            )
        self.page = Paginator(shown, page_size).get_page(request.GET.get("page"))


def _none_first(value: Any) -> tuple[bool, Any]:
    return (False, 0) if value is None else (True, value)


def _matching(text: str, fields: Iterable[str], id_fields: Iterable[str]) -> Q:
    condition = Q()
    for field in fields:
        condition |= Q(**{f"{field}__icontains": text})
    for field in id_fields if is_id(text) else ():
        condition |= Q(**{field: decode(text)})
    return condition

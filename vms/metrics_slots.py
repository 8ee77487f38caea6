"""Samples put together by slots of time, in the database."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from django.db.models import Avg, F, FloatField, Max, Min, QuerySet
from django.db.models.expressions import CombinedExpression, ExpressionWrapper

from nexus_site.core.ids import NexusID
from vms.models import Sample

#: How many values are made one: what a VM was given or held at most, else the average.
COMBINED: dict[str, type[Avg] | type[Max]] = {
    "cpu": Avg,
    "memory_used": Max,
    "memory_total": Max,
    "disk_read": Avg,
    "disk_write": Avg,
    "net_rx": Avg,
    "net_tx": Avg,
    "vmm_cpu": Avg,
    "vmm_memory": Max,
}
COLUMNS = tuple(COMBINED)
#: For ``thinned__in``, so that SQLite uses the index: with ``thinned=False`` it would not.
FULL, THINNED_OR_NOT = (False,), (False, True)


@dataclass(frozen=True, slots=True)
class Slot:
    """What the samples of one slot come to; they cover ``since`` to ``until`` (epoch seconds)."""

    since: float
    until: int
    values: dict[str, float | None]


def samples_of(vm: NexusID) -> QuerySet[Sample]:
    """The samples of the VM with this key, thinned or not."""
    return Sample.objects.filter(vm=vm, thinned__in=THINNED_OR_NOT)


def by_slot(rows: QuerySet[Sample], seconds: int) -> Iterator[Slot]:
    """``rows`` in slots of so many seconds that have any, oldest first; one query."""
    slot: CombinedExpression = F("at") / seconds
    began = Min(ExpressionWrapper(F("at") - F("seconds"), FloatField()))
    values = {f"{name}_": combine(name) for name, combine in COMBINED.items()}
    grouped = rows.order_by().annotate(slot=slot).values("slot").order_by("slot")
    found = grouped.annotate(since=began, until=Max("at"), **values)
    for since, until, *row in found.values_list("since", "until", *values):
        yield Slot(since, until, dict(zip(COLUMNS, row, strict=True)))

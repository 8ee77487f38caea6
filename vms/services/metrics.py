"""What VMs use now, and what they used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from django.conf import settings
from django.db.models import Avg, Max, Prefetch, QuerySet
from django.utils import timezone

from nexus_site.core.errors import Invalid
from vms.metrics_slots import COLUMNS, FULL, Slot, by_slot, samples_of
from vms.models import VM, Sample, Transition
from vms.states import State

MOST_POINTS = 2000
MOST_TRANSITIONS = 500
EPOCH = datetime.fromtimestamp(0, UTC)

Value = float | None


@dataclass(frozen=True)
class Summary:
    """One column in short: now (None unless it was measured just now), on average, at most."""

    now: Value
    avg: Value
    max: Value


@dataclass(frozen=True)
class Metrics:
    """What a VM used from ``start`` to ``end``, in slots of ``step_seconds``.

    ``at[i]`` is when ``columns[name][i]`` was measured last. A point whose values are all None
    stands where nothing was measured. ``transitions``: the last moves of its state in that time,
    oldest first.
    """

    start: datetime
    end: datetime
    step_seconds: int
    at: list[datetime]
    columns: dict[str, list[Value]]
    summary: dict[str, Summary]
    transitions: list[Transition]


def metrics_of(vm: VM, start: datetime, end: datetime, points: int) -> Metrics:
    """What ``vm`` used between two times, as at most ``points`` points and the gaps between them.

    The future is left out. The number of queries does not depend on the span. Raises ``Invalid``
    for a span of nothing.
    """
    start, end = max(start, EPOCH), min(end, timezone.now())
    first, last = int(start.timestamp()), int(end.timestamp())
    if last <= first:
        raise Invalid("The time that is asked for ends before it begins.", code="empty-span")
    step = max(1, ceil((last - first) / (points - 1)))  # slots begin at multiples of it
    rows = samples_of(vm.pk).filter(at__gt=first, at__lte=last)
    found = list(_with_gaps(by_slot(rows, step)))
    return Metrics(
        start=start,
        end=end,
        step_seconds=step,
        at=[datetime.fromtimestamp(slot.until, UTC) for slot in found],
        columns={name: [slot.values[name] for slot in found] for name in COLUMNS},
        summary=_summary(vm, rows),
        transitions=_transitions(vm, start, end),
    )


def with_usage(vms: QuerySet[VM]) -> QuerySet[VM]:
    """``vms`` with ``recent_samples``, the last one last: one query more however many they are."""
    return vms.prefetch_related(Prefetch("samples", _recent(), to_attr="recent_samples"))


def usage_of(vm: VM) -> Sample | None:
    """What a VM uses now; None when that was not measured just now.

    Asks the database unless the VM comes from ``with_usage``.
    """
    if vm.state != State.READY:
        return None
    samples = getattr(vm, "recent_samples", None)
    if samples is None:
        return _recent().filter(vm=vm).last()
    return samples[-1] if samples else None


def _recent() -> QuerySet[Sample]:
    """Samples that say how things are now."""
    limits = settings.NEXUS
    since = int(time.time() - limits.heartbeat_interval - limits.heartbeat_timeout)
    return Sample.objects.filter(thinned__in=FULL, at__gte=since).order_by("at")


def _with_gaps(slots: Iterator[Slot]) -> Iterator[Slot]:
    """``slots``, and an empty one wherever nothing was measured for three heartbeats."""
    longest = 3 * settings.NEXUS.heartbeat_interval
    before: Slot | None = None
    for slot in slots:
        if before is not None and slot.since - before.until > longest:
            yield Slot(before.until, before.until + 1, dict.fromkeys(COLUMNS))
        yield slot
        before = slot


def _summary(vm: VM, rows: QuerySet[Sample]) -> dict[str, Summary]:
    wanted = {f"{name}_{kind.name}": kind(name) for name in COLUMNS for kind in (Avg, Max)}
    found = rows.order_by().aggregate(**wanted)
    newest = usage_of(vm)
    return {
        name: Summary(
            getattr(newest, name, None), found[f"{name}_{Avg.name}"], found[f"{name}_{Max.name}"]
        )
        for name in COLUMNS
    }


def _transitions(vm: VM, start: datetime, end: datetime) -> list[Transition]:
    rows = Transition.objects.filter(vm=vm, at__gt=start, at__lte=end)
    return list(rows.order_by("-number")[:MOST_TRANSITIONS])[::-1]

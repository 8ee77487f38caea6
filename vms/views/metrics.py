"""The page with charts of what a VM uses."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.utils import timezone
from django.views.decorators.http import require_safe

from nexus_site.core.htmx import Request, page, render_page
from vms.metrics_schemas import MetricsOut
from vms.models import VM, Transition
from vms.services import metrics
from vms.states import LOOKS
from vms.views.frame import FRAME_FRAGMENTS, frame

#: What the page's address may ask for, and what its links say.
RANGES = {
    "15m": ("15 min", timedelta(minutes=15)),
    "1h": ("1 h", timedelta(hours=1)),
    "6h": ("6 h", timedelta(hours=6)),
    "48h": ("48 h", timedelta(hours=48)),
    "30d": ("30 days", timedelta(days=30)),
}
USUAL = "1h"
POINTS = 300
MOVES_SHOWN = 30
FRAGMENTS = (*FRAME_FRAGMENTS, "vms/_moves.html")


@dataclass(frozen=True)
class Series:
    """A line of a chart: its column, and its name for people."""

    column: str
    label: str


@dataclass(frozen=True)
class Chart:
    """``unit``: ``share``, ``processors``, ``bytes`` or ``rate``; metrics.js knows them, too."""

    title: str
    note: str
    unit: str
    series: tuple[Series, ...]


CHARTS = (
    Chart("CPU", "of the guest's processors", "share", (Series("cpu", "Busy"),)),
    Chart(
        "Memory",
        "in the guest",
        "bytes",
        (Series("memory_used", "Used"), Series("memory_total", "Total")),
    ),
    Chart(
        "Disk",
        "all drives",
        "rate",
        (Series("disk_read", "Read"), Series("disk_write", "Written")),
    ),
    Chart("Network", "", "rate", (Series("net_rx", "Received"), Series("net_tx", "Sent"))),
    Chart("VMM CPU", "of the host's processors", "processors", (Series("vmm_cpu", "Busy"),)),
    Chart("VMM memory", "on the host", "bytes", (Series("vmm_memory", "Held"),)),
)


@require_safe
@page()
def metrics_page(request: Request, ref: str) -> HttpResponse:
    """What one VM used in the last minutes, hours or days."""
    context = frame(ref, "vms:metrics")
    context["shown"] = Shown(context["vm"], request.GET.get("range", USUAL))
    return render_page(request, "vms/metrics.html", context, fragments=FRAGMENTS)


class Shown:
    """What the page shows of ``vm``, read when a template asks; an unknown range is the usual."""

    def __init__(self, vm: VM, range_: str) -> None:
        self._vm = vm
        self.range = range_ if range_ in RANGES else USUAL
        self.span = RANGES[self.range][1]
        self.points = POINTS

    @property
    def ranges(self) -> list[dict[str, Any]]:
        return [
            {"label": label, "query": f"?range={name}", "current": name == self.range}
            for name, (label, _) in RANGES.items()
        ]

    @cached_property
    def found(self) -> metrics.Metrics:
        now = timezone.now()
        return metrics.metrics_of(self._vm, now - self.span, now, POINTS)

    @property
    def document(self) -> dict[str, Any]:
        """The API's answer, for the charts; and the colours of states."""
        answer = MetricsOut.of(self.found).model_dump(mode="json", by_alias=True)
        return answer | {"colours": {state.value: look[0] for state, look in LOOKS.items()}}

    @property
    def charts(self) -> list[dict[str, Any]]:
        """The charts, each with its lines: series and summary."""
        summary = self.found.summary
        return [
            {"chart": chart, "lines": [(line, summary[line.column]) for line in chart.series]}
            for chart in CHARTS
        ]

    def moves(self) -> QuerySet[Transition]:
        """The newest moves of the state in the span, newest first."""
        rows = Transition.objects.filter(vm=self._vm, at__gt=timezone.now() - self.span)
        return rows.order_by("-number")[:MOVES_SHOWN]

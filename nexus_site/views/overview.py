"""The first page: how many VMs in which state, what the host has left, what goes on."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from nexus_site import health
from nexus_site.core.htmx import Request, page, render_page
from nexus_site.core.models import Event
from nexus_site.core.operations import open_operations
from vms import services
from vms.states import ALIVE, TRANSIENT, State

FRAGMENTS = (
    "overview/_health.html",
    "overview/_counts.html",
    "overview/_host.html",
    "overview/_running.html",
    "overview/_events.html",
)
EVENTS_SHOWN = 14
#: What happens too often to be news.
NO_NEWS = ("operation.opened", "operation.progressed")


@require_safe
@page()
def overview(request: Request) -> HttpResponse:
    counts = services.counts_by_state()
    context = {
        "area": "overview",
        "total": sum(counts.values()),
        "alive": sum(counts[state] for state in ALIVE | TRANSIENT),
        "trouble": counts[State.CRASHED] + counts[State.FAILED] + counts[State.UNREACHABLE],
        "counts": {state: number for state, number in counts.items() if number},
        "host": services.host_capacity,
        "health": health.report,
        "running": open_operations().reverse()[:6],
        "events": Event.objects.exclude(kind__in=NO_NEWS)[:EVENTS_SHOWN],
    }
    return render_page(request, "overview/overview.html", context, fragments=FRAGMENTS)

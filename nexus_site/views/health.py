"""The health of this host: every probe, and how to put right what is not."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_POST, require_safe

from nexus_site import health as host_health
from nexus_site.core.htmx import Request, page, render_page, toast

FRAGMENTS = ("health/_report.html",)


@require_safe
@page()
def health(request: Request) -> HttpResponse:
    context = {"area": "health", "report": host_health.report()}
    return render_page(request, "health/health.html", context, fragments=FRAGMENTS)


@require_POST
@page()
def look_again(request: Request) -> HttpResponse:
    operation = host_health.look_again()
    return toast(request, operation.title, operation=operation)

"""The forms for a new VM, drive or image, and the preview of what they would do.

All are the same: what is wanted is in the address, what it is made from in ``?from=``.
"""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.operations import rehearse
from vms.forms import FORMS, CreateForm
from vms.shortcuts import Target

FORM = "vms/_new_form.html"
_LABELS = {
    "rootfs": "Distribution",
    "template": "Template",
    "image": "Image",
    "empty": "Empty",
    "drive": "Drive",
    "snapshot": "Snapshot",
}
_FILES = {"image": "vms:import-image", "drive": "drives:import"}


@dataclass(frozen=True)
class Making:
    """What is made here, and what it may be made from: the first unless another is asked for."""

    target: Target
    title: str
    area: str
    button: str
    trail: tuple[str, str]  # the name of the list's address, and its title
    sources: tuple[str, ...]
    default: str

    @property
    def path(self) -> str:
        return f"/{self.target}s/new/"

    @property
    def trail_url(self) -> str:
        return reverse(self.trail[0])


MAKINGS: dict[Target, Making] = {
    making.target: making
    for making in (
        Making(
            "vm", "New VM", "new", "Create and start", ("vms:list", "Virtual machines"),
            ("rootfs", "template", "image"), "rootfs",
        ),
        Making(
            "drive", "New drive", "drives", "Create", ("drives:list", "Drives"),
            ("image", "empty", "drive", "snapshot", "rootfs", "template"), "image",
        ),
        Making(
            "image", "New image", "images", "Create", ("images:list", "Images"),
            ("rootfs", "template"), "rootfs",
        ),
    )
}  # fmt: skip


@require_http_methods(["GET", "POST"])
@page("operate")
def new(request: Request, target: Target) -> HttpResponse:
    """Something new; goes on to the operation that makes it."""
    making = MAKINGS[target]
    form = _form(request, making)
    if request.method == "POST" and form.is_valid():
        try:
            operation = form.submit()
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, reverse("operation", args=[operation.ref]))
    status = 422 if form.is_bound else 200
    context = _context(making, form)
    return render_page(request, "vms/new.html", context, fragments=(FORM,), status=status)


@require_POST
@page("operate")
def preview(request: Request, target: Target) -> HttpResponse:
    """What the form would do as it is filled in, and the same by command and API."""
    making = MAKINGS[target]
    form = _form(request, making)
    context = _context(making, form)
    if form.is_valid():
        context |= {
            "command": shlex.join(form.command()),
            "api_path": form.api_path,
            "request_body": json.dumps(form.request_body()),
        }
        try:
            context["plan"] = rehearse(form.submit)
        except NexusError as error:
            context["error"] = error
    return render_page(request, "vms/_plan.html", context)


def _form(request: Request, making: Making) -> CreateForm:
    """The form for the source that the address names, one chosen beforehand if it says which."""
    asked = request.GET.get("from", "")
    named = [source for source in making.sources if source in request.GET]
    source = asked if asked in making.sources else (named or [making.default])[0]
    initial = {source: request.GET.get(source)}
    return FORMS[source](request.POST or None, target=making.target, initial=initial)


def _context(making: Making, form: CreateForm) -> dict[str, Any]:
    sources = [
        {
            "label": _LABELS[source],
            "url": f"{making.path}?from={source}",
            "current": source == form.source,
        }
        for source in making.sources
    ]
    if making.target in _FILES:
        url = reverse(_FILES[making.target])
        sources.append({"label": "File", "url": url, "current": False})
    return {
        "area": making.area,
        "making": making,
        "form": form,
        "sources": sources,
        "here": f"{making.path}?from={form.source}",
        "preview_url": f"{making.path}preview/?from={form.source}",
    }

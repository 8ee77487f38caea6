"""The page of warm templates: what there is, what it takes, how often it was used."""

from __future__ import annotations

from typing import Any

from django.conf import settings
from django.http import HttpResponse
from django.views.decorators.http import require_http_methods, require_safe

from nexus_site.core.dialogs import Dialog
from nexus_site.core.htmx import Request, page, render_page, toast
from nexus_site.core.ids import resolve
from vms import queries
from vms.services import warm
from vms.shape import shape_in
from vms.warm_forms import MakeForm

FRAGMENTS = ("vms/_warm.html",)


@require_safe
@page()
def warm_list(request: Request) -> HttpResponse:
    rows = [
        {"template": template, "disk_bytes": warm.disk_bytes(template)}
        for template in queries.warm_templates()
    ]
    context = {
        "area": "warm",
        "rows": rows,
        "most": settings.NEXUS.warm_templates_most,
        "off": not settings.NEXUS.warm_templates,
    }
    return render_page(request, "vms/warm.html", context, fragments=FRAGMENTS)


@require_http_methods(["GET", "POST"])
@page("operate")
def make(request: Request) -> HttpResponse:
    """One of an image, now."""

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = warm.make_warm_template(data["image"], shape_in(data))
        return toast(request, operation.title, operation=operation)

    text = "A VM that nobody sees boots from the image once. New VMs of that size go on from there."
    dialog = Dialog("Make a warm template", "Make", text)
    return dialog.answer(request, submit, MakeForm, {"image": request.GET.get("image")})


@require_http_methods(["GET", "POST"])
@page("operate")
def delete(request: Request, ref: str) -> HttpResponse:
    template = resolve(queries.warm_templates(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = warm.delete_warm_template(template)
        return toast(request, operation.title, operation=operation)

    dialog = Dialog(
        f"Delete the {template}?",
        "Delete",
        "VMs that went on from it run on. The next one boots, and a new template is made then.",
        danger=True,
        plan=lambda: warm.delete_warm_template(template),
    )
    return dialog.answer(request, submit)


@require_http_methods(["GET", "POST"])
@page("operate")
def prune(request: Request) -> HttpResponse:
    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = warm.prune_warm_templates()
        return toast(request, operation.title, operation=operation)

    text = "What no VM can go on from any more goes, and what is too much. It does so by itself."
    dialog = Dialog("Prune warm templates?", "Prune", text, plan=warm.prune_warm_templates)
    return dialog.answer(request, submit)

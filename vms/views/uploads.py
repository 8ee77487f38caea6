"""An image from a file of one's own. What is imported leads up the house: to a build."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from images import uploads
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.models import Operation
from vms import shortcuts
from vms.forms import ImportImageForm

FORM = "images/_import_form.html"


@require_http_methods(["GET", "POST"])
@page("operate")
def import_image(request: Request) -> HttpResponse:
    """Takes the file in, and goes on to the operation that makes an image of it."""
    form = ImportImageForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            operation = _import(form.cleaned_data)
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, reverse("operation", args=[operation.ref]))
    context = {"area": "images", "form": form}
    status = 422 if form.is_bound else 200
    return render_page(request, "images/import.html", context, fragments=(FORM,), status=status)


def _import(data: dict[str, Any]) -> Operation:
    upload = uploads.receive(data["file"], sha256=data["sha256"], filename=data["file"].name)
    try:
        return shortcuts.import_image(upload, name=data["name"], checked=bool(data["sha256"]))
    finally:
        uploads.discard_unless_named(upload.ref)

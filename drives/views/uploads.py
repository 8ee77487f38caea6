"""A drive from a file of one's own."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods

from drives import services
from drives.forms import ImportDriveForm
from images import uploads
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.models import Operation

FORM = "drives/_import_form.html"


@require_http_methods(["GET", "POST"])
@page("operate")
def import_drive(request: Request) -> HttpResponse:
    """Takes the file in, and goes on to the operation that makes a drive of it."""
    form = ImportDriveForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            operation = _import(form.cleaned_data)
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, reverse("operation", args=[operation.ref]))
    context = {"area": "drives", "form": form}
    status = 422 if form.is_bound else 200
    return render_page(request, "drives/import.html", context, fragments=(FORM,), status=status)


def _import(data: dict[str, Any]) -> Operation:
    upload = uploads.receive(data["file"], sha256=data["sha256"], filename=data["file"].name)
    try:
        return services.import_drive(upload, name=data["name"], size_mib=data["size_mib"])
    finally:
        uploads.discard_unless_named(upload.ref)

"""The pages of drives. New ones, attaching and detaching lead up the house: ``vms.views``."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from drives import services
from drives.models import Drive
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing

COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-a"),
    "state": Column("State", "state"),
    "vm": Column("Attached to", "attachment__vm__name"),
    "image": Column("Image", "image__name", "hide-b"),
    "size": Column("Size", "size_bytes", "num"),
    "created": Column("Created", "created_at", "hide-b"),
}


def _drives() -> QuerySet[Drive]:
    """Drives with their images and, through what is attached, their VMs."""
    return Drive.objects.select_related("image", "attachment__vm")


@require_safe
@page()
def drive_list(request: Request) -> HttpResponse:
    listing = Listing(
        request, _drives(), columns=COLUMNS, sort="-created", states=Drive.State.values
    )
    context = {"area": "drives", "listing": listing}
    return render_page(request, "drives/list.html", context, fragments=("drives/_table.html",))


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    context = {"area": "drives", "drive": resolve(_drives(), ref)}
    return render_page(request, "drives/detail.html", context, fragments=("drives/_drive.html",))


@require_POST
@page()
def delete(request: Request, ref: str) -> HttpResponse:
    operation = services.delete_drive(resolve(_drives(), ref))
    return go_to(request, reverse("drives:list"), f"{operation.title}: under way.")

"""The pages of drives. Attaching and detaching are about VMs: ``vms.views``."""

from __future__ import annotations

from django.db.models import QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from drives import services
from drives.forms import NewDriveForm
from drives.models import Drive
from nexus_site.core.errors import NexusError
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


@require_http_methods(["GET", "POST"])
@page("operate")
def new(request: Request) -> HttpResponse:
    """A drive from an image; ``?image=`` chooses one beforehand."""
    form = NewDriveForm(request.POST or None, initial={"image": request.GET.get("image")})
    if request.method == "POST" and form.is_valid():
        try:
            operation = services.create_drive(form.cleaned_data["image"], **form.arguments())
        except NexusError as error:
            form.refuse(error)
        else:
            text = f"{operation.title}: under way."
            return go_to(request, reverse("drives:list"), text)
    status = 422 if form.is_bound else 200
    context = {"area": "drives", "form": form}
    fragments = ("drives/_new_form.html",)
    return render_page(request, "drives/new.html", context, fragments=fragments, status=status)


@require_POST
@page()
def delete(request: Request, ref: str) -> HttpResponse:
    operation = services.delete_drive(resolve(_drives(), ref))
    return go_to(request, reverse("drives:list"), f"{operation.title}: under way.")

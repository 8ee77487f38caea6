"""The pages of images."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, Max, Q, QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from images import services
from images.forms import RenameImageForm
from images.models import Image
from images.schemas import NOBODYS
from nexus_site.core.errors import Invalid
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing

COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-b"),
    "os": Column("Distribution", "os_name"),
    "agent": Column("Agent", "agent_version", "hide-b"),
    "drives": Column("Drives", "drive_count", "num"),
    "used": Column("On disk", "used_bytes", "num"),
    "created": Column("Created", "created_at", "hide-a"),
}


def _images() -> QuerySet[Image]:
    """Images with the number of drives made from them."""
    return Image.objects.select_related("rootfs").annotate(
        drive_count=Count("drives", filter=~Q(drives__attachment__vm__purpose__in=NOBODYS))
    )


@require_safe
@page()
def image_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        _images().defer("inputs", "packages"),
        columns=COLUMNS,
        sort="-created",
        search=("name", "os_name"),
    )
    context = {"area": "images", "listing": listing}
    return render_page(request, "images/list.html", context, fragments=("images/_table.html",))


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """One image: what it is, how it was made, and where it is used."""
    image = resolve(_images().prefetch_related("builds__template_version__template"), ref)
    context = image_context(image, "Overview") | {
        "drives": image.drives.exclude(attachment__vm__purpose__in=NOBODYS)
        .select_related("attachment__vm")
        .order_by("name"),
        "verified": image.verifications.filter(state="succeeded").aggregate(
            count=Count("pk"), last=Max("ended_at")
        ),
        "differed": image.verifications.filter(Q(state="failed")).count(),
        "rename_form": RenameImageForm(initial={"name": image.name}),
    }
    fragments = ("images/_image.html",)
    return render_page(request, "images/detail.html", context, fragments=fragments)


def image_context(image: Image, current: str) -> dict[str, Any]:
    """What all pages of one image show: itself, and the way to its other pages."""
    tabs = [
        {"label": label, "url": reverse(name, args=[image.ref]), "note": note}
        for label, name, note in (
            ("Overview", "images:detail", ""),
            ("Packages", "images:packages", str(len(image.packages))),
            ("Files", "images:files", ""),
        )
    ]
    for tab in tabs:
        tab["current"] = "yes" if tab["label"] == current else ""
    return {"area": "images", "image": image, "tabs": tabs}


@require_POST
@page()
def rename(request: Request, ref: str) -> HttpResponse:
    image = resolve(Image.objects.all(), ref)
    form = RenameImageForm(request.POST)
    if not form.is_valid():
        raise Invalid("A name is needed.", code="name-rule")
    services.rename_image(image, form.cleaned_data["name"])
    return go_to(request, reverse("images:detail", args=[image.ref]))


@require_POST
@page()
def delete(request: Request, ref: str) -> HttpResponse:
    operation = services.delete_image(resolve(Image.objects.all(), ref))
    return go_to(request, reverse("images:list"), f"{operation.title}: under way.")

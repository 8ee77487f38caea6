"""The pages of builds."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from builds import services
from builds.models import Build, Making, Template
from images.models import Image
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.models import Operation
from nexus_site.core.terminal import plain_text

BUILD_COLUMNS = {
    "image": Column("Image", "image_name"),
    "id": Column("Build", "", "hide-a"),
    "state": Column("State", "state"),
    "template": Column("Template", "template_version__template__name", "hide-b"),
    "created": Column("Started", "created_at"),
    "took": Column("Took", "", "num hide-a"),
}


def _builds() -> QuerySet[Build]:
    return Build.objects.select_related(
        "template_version__template", "template_version__rootfs", "image", "verifies"
    )


@require_POST
@page()
def run_build(request: Request, ref: str) -> HttpResponse:
    """Build an image from a template; goes on to the build's page."""
    template = resolve(Template.objects.prefetch_related("versions"), ref)
    name = request.POST.get("image_name", "").strip()
    operation = services.trigger_build(template, image_name=name)
    return go_to(request, reverse("builds:detail", args=[str(operation.subject_id)]))


@require_POST
@page()
def build_again(request: Request, ref: str) -> HttpResponse:
    """Build an image anew from what the build's template says now, whether one is there or not."""
    build = services.find_build(_builds(), ref)
    template = build.template_version.template
    operation = services.trigger_build(template, rebuild=True)
    return go_to(request, reverse("builds:detail", args=[str(operation.subject_id)]))


@require_POST
@page()
def verify_image(request: Request, ref: str) -> HttpResponse:
    """Build an image again and compare; goes on to the page of that build."""
    image = resolve(Image.objects.prefetch_related("builds"), ref)
    operation = services.verify_image(image)
    return go_to(request, reverse("builds:detail", args=[str(operation.subject_id)]))


@require_safe
@page()
def build_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        _builds().defer("inputs", "template_version__recipe"),
        columns=BUILD_COLUMNS,
        sort="-created",
        search=("image_name", "template_version__template__name"),
        states=Build.State.values,
    )
    context = {"area": "builds", "listing": listing}
    return render_page(request, "builds/list.html", context, fragments=("builds/_table.html",))


@require_safe
@page()
def build_detail(request: Request, ref: str) -> HttpResponse:
    """One build: its steps, its log as it grows, what came of it."""
    build = services.find_build(_builds(), ref)
    context = {
        "area": "builds",
        "build": build,
        "operation": Operation.objects.filter(pk=build.operation_id).first(),
        "log": end_of_log(request, build),
    }
    return render_page(request, "builds/detail.html", context, fragments=("builds/_build.html",))


def end_of_log(request: Request, build: Making) -> dict[str, Any] | None:
    """The end of the log for the first view of the page; fragments do without."""
    if request.htmx:
        return None
    end = services.read_log(build, offset=-65536)
    return {"text": plain_text(end.text), "next": end.next_offset}

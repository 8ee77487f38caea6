"""The pages of templates and builds."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from builds import services
from builds.forms import NewTemplateForm
from builds.models import Build, Template
from images.models import Rootfs
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.models import Operation
from nexus_site.core.terminal import plain_text

TEMPLATE_COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-a"),
    "rootfs": Column("Distribution", ""),
    "description": Column("Description", "", "hide-b"),
    "builds": Column("Builds", "build_count", "num"),
    "created": Column("Created", "created_at", "hide-a"),
}
BUILD_COLUMNS = {
    "image": Column("Image", "image_name"),
    "id": Column("Build", "", "hide-a"),
    "state": Column("State", "state"),
    "template": Column("Template", "template_version__template__name", "hide-b"),
    "created": Column("Started", "created_at"),
    "took": Column("Took", "", "num hide-a"),
}


def _templates() -> QuerySet[Template]:
    """Templates with their versions' root file systems and the number of their builds."""
    rows = Template.objects.prefetch_related("versions__rootfs")
    return rows.annotate(build_count=Count("versions__builds"))


def _builds() -> QuerySet[Build]:
    return Build.objects.select_related("template_version__template", "image")


@require_safe
@page()
def template_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        _templates(),
        columns=TEMPLATE_COLUMNS,
        sort="name",
        search=("name", "description"),
    )
    context = {"area": "templates", "listing": listing}
    fragments = ("builds/_templates.html",)
    return render_page(request, "builds/templates.html", context, fragments=fragments)


@require_safe
@page()
def template_detail(request: Request, ref: str) -> HttpResponse:
    template = resolve(_templates(), ref)
    context = {
        "area": "templates",
        "template": template,
        "builds": _builds().filter(template_version__template=template)[:20],
    }
    fragments = ("builds/_template.html",)
    return render_page(request, "builds/template.html", context, fragments=fragments)


@require_http_methods(["GET", "POST"])
@page("operate")
def new_template(request: Request) -> HttpResponse:
    """A template from a root file system that is kept here."""
    form = NewTemplateForm(request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            template = services.create_template(**form.arguments())
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, reverse("builds:template", args=[template.ref]))
    context = {"area": "templates", "form": form, "any_rootfs": Rootfs.objects.exists()}
    return render_page(
        request,
        "builds/new_template.html",
        context,
        fragments=("builds/_new_form.html",),
        status=422 if form.is_bound else 200,
    )


@require_POST
@page()
def delete_template(request: Request, ref: str) -> HttpResponse:
    template = resolve(Template.objects.all(), ref)
    services.delete_template(template)
    return go_to(request, reverse("builds:templates"), f"{template.name} is deleted.")


@require_POST
@page()
def run_build(request: Request, ref: str) -> HttpResponse:
    """Build an image from a template; goes on to the build's page."""
    template = resolve(_templates(), ref)
    name = request.POST.get("image_name", "").strip()
    operation = services.trigger_build(template, image_name=name)
    return go_to(request, reverse("builds:detail", args=[str(operation.subject_id)]))


@require_safe
@page()
def build_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        _builds(),
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
    build = resolve(_builds(), ref)
    context = {
        "area": "builds",
        "build": build,
        "operation": Operation.objects.filter(pk=build.operation_id).first(),
        "log": _log(request, build),
    }
    return render_page(request, "builds/detail.html", context, fragments=("builds/_build.html",))


def _log(request: Request, build: Build) -> dict[str, Any] | None:
    """The end of the log for the first view of the page; fragments do without."""
    if request.htmx:
        return None
    end = services.read_log(build, offset=-65536)
    return {"text": plain_text(end.text), "next": end.next_offset}

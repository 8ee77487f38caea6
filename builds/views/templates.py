"""The pages of templates."""

from __future__ import annotations

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

TEMPLATE_COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-a"),
    "rootfs": Column("Distribution", ""),
    "description": Column("Description", "", "hide-b"),
    "builds": Column("Builds", "build_count", "num"),
    "created": Column("Created", "created_at", "hide-a"),
}


def _templates() -> QuerySet[Template]:
    """Templates with their versions' root file systems and the number of their builds."""
    rows = Template.objects.prefetch_related("versions__rootfs")
    return rows.annotate(build_count=Count("versions__builds"))


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
        "builds": Build.objects.filter(template_version__template=template)[:20],
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

"""The pages of templates: lists, one, one of its versions, and what can be done with it."""

from __future__ import annotations

from django.db.models import Count
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from builds import queries, services
from builds.diffs import Line, compare
from builds.models import Build, Template, TemplateVersion
from builds.template_yaml import dump
from nexus_site.core.errors import Invalid
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing

COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-a"),
    "rootfs": Column("Distribution", ""),
    "description": Column("Description", "", "hide-b"),
    "version": Column("Version", "", "num"),
    "builds": Column("Builds", "build_count", "num"),
    "created": Column("Created", "created_at", "hide-a"),
}
VERSIONS_SHOWN = 20
BUILDS_SHOWN = 20


@require_safe
@page()
def template_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        queries.template_list().annotate(build_count=Count("versions__builds")),
        columns=COLUMNS,
        sort="name",
        search=("name", "description"),
    )
    context = {"area": "templates", "listing": listing}
    fragments = ("builds/_templates.html",)
    return render_page(request, "builds/templates.html", context, fragments=fragments)


@require_safe
@page()
def template_detail(request: Request, ref: str) -> HttpResponse:
    template = _template(ref)
    builds = Build.objects.filter(template_version__template=template)
    context = {
        "area": "templates",
        "template": template,
        "version": template.current,
        "recipe": template.current.parsed,
        "versions": queries.version_list(template).defer("recipe")[:VERSIONS_SHOWN],
        "builds": builds.select_related("template_version")[:BUILDS_SHOWN],
        "images": services.images_of(template),
    }
    fragments = ("builds/_template.html",)
    return render_page(request, "builds/template.html", context, fragments=fragments)


@require_safe
@page()
def template_version(request: Request, ref: str, number: int) -> HttpResponse:
    """One version, and what it changed."""
    template = _template(ref)
    version = services.find_version(template, number)
    context = {
        "area": "templates",
        "template": template,
        "version": version,
        "recipe": version.parsed,
        "newest": template.current.number,
        "changes": changes_of(template, version),
    }
    return render_page(request, "builds/template_version.html", context)


@require_safe
@page()
def template_yaml(request: Request, ref: str) -> HttpResponse:
    """The current version, or ``?version=``, as a file to keep."""
    template = _template(ref)
    wanted = request.GET.get("version", "")
    if wanted and not wanted.isdecimal():
        raise Invalid("A version is a number.", code="number")
    version = services.find_version(template, int(wanted)) if wanted else template.current
    response = HttpResponse(dump(template, version), content_type="application/yaml; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{template.name}.yaml"'
    return response


@require_POST
@page()
def delete_template(request: Request, ref: str) -> HttpResponse:
    template = _template(ref)
    services.delete_template(template)
    return go_to(request, reverse("builds:templates"), f"{template.name} is deleted.")


@require_POST
@page()
def rename_template(request: Request, ref: str) -> HttpResponse:
    renamed = services.rename_template(_template(ref), request.POST.get("name", "").strip())
    text = f"It is called {renamed.name} now."
    return go_to(request, reverse("builds:template", args=[renamed.ref]), text)


@require_POST
@page()
def copy_template(request: Request, ref: str) -> HttpResponse:
    copy = services.copy_template(_template(ref), name=request.POST.get("name", "").strip())
    text = f"{copy.name} is a copy; what you change in it stays in it."
    return go_to(request, reverse("builds:template", args=[copy.ref]), text)


@require_POST
@page()
def revert_template(request: Request, ref: str, number: int) -> HttpResponse:
    """Make a version current again, as a new one."""
    template = _template(ref)
    before = template.current.number
    reverted = services.revert_template(template, number, expected_version=before)
    after = reverted.current.number
    text = f"Version {after} says what version {number} says."
    if after == before:
        text = f"The current version says what version {number} says already."
    return go_to(request, reverse("builds:template", args=[template.ref]), text)


def changes_of(template: Template, version: TemplateVersion) -> list[Line]:
    """What a version changed; nothing for the first."""
    if version.number == 1:
        return []
    before = services.find_version(template, version.number - 1)
    return compare(dump(template, before, header=False), dump(template, version, header=False))


def _template(ref: str) -> Template:
    return resolve(queries.template_detail(), ref)

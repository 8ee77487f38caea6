"""Templates over HTTP."""

from __future__ import annotations

from typing import Annotated, Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from builds import queries, services
from builds.models import Template, TemplateVersion
from builds.schemas import (
    CopyTemplate,
    CreateTemplate,
    RevertTemplate,
    TemplateDetail,
    TemplateOut,
    TemplateVersionDetail,
    TemplateVersionOut,
    UpdateTemplate,
    WhichRootfs,
)
from builds.template_yaml import dump, load
from images.models import Rootfs
from nexus_site.core.errors import Invalid
from nexus_site.core.http import carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()

YAML = "application/yaml"
#: What OpenAPI is told of an endpoint that takes a document.
TAKES_YAML: dict[str, Any] = {
    "requestBody": {"required": True, "content": {YAML: {"schema": {"type": "string"}}}}
}
GIVES_YAML: dict[str, Any] = {
    "responses": {200: {"content": {YAML: {"schema": {"type": "string"}}}}}
}


class EditQuery(ChangeQuery):
    expected_version: int | None = None


class ImportQuery(ChangeQuery):
    replace: bool = False


@router.get("/templates", response=Page[TemplateOut])
def list_templates(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(queries.template_list(), query, "name", "-created_at")


@router.post("/templates", response={201: TemplateDetail})
def create_template(
    request: HttpRequest, data: CreateTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """A template: what is done to a root file system to make an image of it."""
    rootfs = _rootfs(data)
    return carry_out(
        request,
        query,
        lambda: services.create_template(
            name=data.name, rootfs=rootfs, description=data.description, recipe=data.recipe
        ),
        shown_as=TemplateDetail,
        status=201,
    )


@router.post("/templates/import", response={201: TemplateDetail}, openapi_extra=TAKES_YAML)
def import_template(request: HttpRequest, query: Query[ImportQuery]) -> HttpResponse:
    """A template from a YAML document; with ``replace``, a new version of the one of its name."""
    document = load(request.body)
    return carry_out(
        request,
        query,
        lambda: services.import_template(document, replace=query.replace),
        shown_as=TemplateDetail,
        status=201,
    )


@router.get("/templates/{ref}", response=TemplateDetail)
def get_template(request: HttpRequest, ref: str) -> Template:
    return _template(ref)


@router.patch("/templates/{ref}", response=TemplateDetail)
def update_template(
    request: HttpRequest, ref: str, data: UpdateTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """Change what is given; another root file system or recipe makes a new version."""
    template = _template(ref)
    named = bool(data.rootfs or data.distro or data.version or data.provider)
    rootfs = _rootfs(data) if named else None
    return carry_out(
        request,
        query,
        lambda: services.update_template(
            template,
            name=data.name or None,
            description=data.description,
            rootfs=rootfs,
            recipe=data.recipe,
            expected_version=data.expected_version,
        ),
        shown_as=TemplateDetail,
    )


@router.delete("/templates/{ref}", response={204: None})
def delete_template(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a template, its builds and their logs; one whose images are here stays."""
    template = _template(ref)
    return carry_out(request, query, lambda: services.delete_template(template))


@router.get("/templates/{ref}/versions", response=Page[TemplateVersionOut])
def list_template_versions(request: HttpRequest, ref: str, query: Query[PageQuery]) -> Slice:
    """Its versions without their recipes, the newest first."""
    return paginate(queries.version_list(_template(ref)).defer("recipe"), query, "-number")


@router.get("/templates/{ref}/versions/{int:number}", response=TemplateVersionDetail)
def get_template_version(request: HttpRequest, ref: str, number: int) -> TemplateVersion:
    return services.find_version(_template(ref), number)


@router.post("/templates/{ref}/revert", response=TemplateDetail)
def revert_template(
    request: HttpRequest, ref: str, data: RevertTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """Make a new version that says what an old one says."""
    template = _template(ref)
    return carry_out(
        request,
        query,
        lambda: services.revert_template(
            template, data.version, expected_version=data.expected_version
        ),
        shown_as=TemplateDetail,
    )


@router.post("/templates/{ref}/copy", response={201: TemplateDetail})
def copy_template(
    request: HttpRequest, ref: str, data: CopyTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """Another template whose first version is this one's."""
    template = _template(ref)
    return carry_out(
        request,
        query,
        lambda: services.copy_template(template, name=data.name, number=data.version),
        shown_as=TemplateDetail,
        status=201,
    )


@router.get("/templates/{ref}/yaml", openapi_extra=GIVES_YAML)
def export_template(
    request: HttpRequest, ref: str, version: Annotated[int | None, Query(ge=1)] = None
) -> HttpResponse:
    """A version, by default the current one, as a YAML document."""
    template = _template(ref)
    found = services.find_version(template, version) if version else template.current
    return HttpResponse(dump(template, found), content_type=f"{YAML}; charset=utf-8")


@router.put("/templates/{ref}/yaml", response=TemplateDetail, openapi_extra=TAKES_YAML)
def edit_template(request: HttpRequest, ref: str, query: Query[EditQuery]) -> HttpResponse:
    """Make the template what a YAML document says, its name included."""
    template = _template(ref)
    document = load(request.body)
    return carry_out(
        request,
        query,
        lambda: services.edit_template(template, document, expected_version=query.expected_version),
        shown_as=TemplateDetail,
    )


def _template(ref: str) -> Template:
    return resolve(queries.template_detail(), ref)


def _rootfs(data: WhichRootfs) -> Rootfs:
    """The root file system that the request names; it must be on this host."""
    if bool(data.rootfs) == bool(data.distro and data.version):
        raise Invalid("Give either distro and version, or the ID of a rootfs.", code="which-rootfs")
    if data.rootfs:
        return resolve(Rootfs.objects.all(), data.rootfs)
    return services.kept_rootfs(data.distro, data.version, data.provider)

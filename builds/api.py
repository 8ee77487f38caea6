"""Templates and builds over HTTP."""

from __future__ import annotations

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from builds import services
from builds.models import Build, Template
from builds.schemas import BuildLog, BuildOut, BuildState, CreateTemplate, TemplateOut, TriggerBuild
from builds.services import LogPage
from images import services as image_services
from images.models import Rootfs
from nexus_site.core.errors import Invalid, NotFound
from nexus_site.core.http import STARTED, carry_out, poll
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router(tags=["templates and builds"])

TEMPLATES = Template.objects.prefetch_related("versions__rootfs")
BUILDS = Build.objects.select_related("template_version__template", "image")


class BuildQuery(PageQuery):
    state: BuildState | None = None
    template: str = Field("", description="Only builds of this template (name or ID).")


@router.get("/templates", response=Page[TemplateOut])
def list_templates(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(TEMPLATES.all(), query, "name", "-created_at")


@router.post("/templates", response={201: TemplateOut})
def create_template(
    request: HttpRequest, data: CreateTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """A template that makes images of a root file system as it is."""
    rootfs = _rootfs(data)
    return carry_out(
        request,
        query,
        lambda: services.create_template(
            name=data.name, rootfs=rootfs, description=data.description
        ),
        shown_as=TemplateOut,
        status=201,
    )


@router.get("/templates/{ref}", response=TemplateOut)
def get_template(request: HttpRequest, ref: str) -> Template:
    return resolve(TEMPLATES.all(), ref)


@router.delete("/templates/{ref}", response={204: None})
def delete_template(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    template = resolve(Template.objects.all(), ref)
    return carry_out(request, query, lambda: services.delete_template(template))


@router.post("/templates/{ref}/builds", response=STARTED)
def trigger_build(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: TriggerBuild = TriggerBuild(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Make an image from the template's current version."""
    template = resolve(TEMPLATES.all(), ref)
    return carry_out(
        request, query, lambda: services.trigger_build(template, image_name=data.image_name)
    )


@router.get("/builds", response=Page[BuildOut])
def list_builds(request: HttpRequest, query: Query[BuildQuery]) -> Slice:
    rows = BUILDS.all()
    if query.state:
        rows = rows.filter(state=query.state)
    if query.template:
        template = resolve(Template.objects.all(), query.template)
        rows = rows.filter(template_version__template=template)
    return paginate(rows, query, "-created_at")


@router.get("/builds/{ref}", response=BuildOut)
def get_build(request: HttpRequest, ref: str) -> Build:
    return resolve(BUILDS.all(), ref)


@router.get("/builds/{ref}/log", response=BuildLog)
def get_build_log(
    request: HttpRequest,
    ref: str,
    offset: Annotated[int, Query(ge=0)] = 0,
    wait: Annotated[float, Query(ge=0, le=60)] = 0,
) -> LogPage:
    """A piece of the log; ``wait`` waits so many seconds for more while the build runs."""
    build = resolve(BUILDS.all(), ref)

    def read() -> LogPage:
        build.refresh_from_db(fields=["state"])  # before the log: after its end nothing is added
        return services.read_log(build, offset)

    return poll(read, lambda page: bool(page.text) or page.ended, wait)


def _rootfs(data: CreateTemplate) -> Rootfs:
    """The root file system that the request names; it must be on this host."""
    if bool(data.rootfs) == bool(data.distro and data.version):
        raise Invalid("Give either distro and version, or the ID of a rootfs.", code="which-rootfs")
    if data.rootfs:
        return resolve(Rootfs.objects.all(), data.rootfs)
    rootfs = image_services.installed_rootfs(data.distro, data.version)
    if rootfs is None:
        offer = image_services.find_rootfs(data.distro, data.version)
        raise NotFound(
            f"{offer.distro.capitalize()} {offer.version} is not on this host yet.",
            hint=f"Fetch it: nexusctl rootfs download {offer.distro} {offer.version}",
            code="rootfs-not-installed",
        )
    return rootfs

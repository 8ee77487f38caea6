"""Builds over HTTP."""

from __future__ import annotations

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from builds import services
from builds.models import Build, Template
from builds.schemas import BuildLog, BuildOut, BuildState, TriggerBuild
from builds.services import LogPage
from images.models import Image
from nexus_site.core.http import STARTED, carry_out, poll
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()

BUILDS = Build.objects.select_related("template_version__template", "image", "verifies")


class BuildQuery(PageQuery):
    state: BuildState | None = None
    template: str = Field("", description="Only builds of this template (name or ID).")


@router.post("/templates/{ref}/builds", response=STARTED)
def trigger_build(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: TriggerBuild = TriggerBuild(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Make an image from the template's current version."""
    template = resolve(Template.objects.prefetch_related("versions"), ref)
    return carry_out(request, query, lambda: services.trigger_build(template, **data.model_dump()))


@router.post("/images/{ref}/verify", response=STARTED)
def verify_image(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Build the image again from the same inputs and compare, byte by byte."""
    image = resolve(Image.objects.prefetch_related("builds"), ref)
    return carry_out(request, query, lambda: services.verify_image(image))


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
    """A build by its ID, or by the ``build_id`` that an image has inside."""
    return services.find_build(BUILDS.all(), ref)


@router.get("/builds/{ref}/log", response=BuildLog)
def get_build_log(
    request: HttpRequest,
    ref: str,
    offset: Annotated[int, Query(ge=0)] = 0,
    wait: Annotated[float, Query(ge=0, le=60)] = 0,
) -> LogPage:
    """A piece of the log; ``wait`` waits so many seconds for more while the build runs."""
    build = services.find_build(BUILDS.all(), ref)

    def read() -> LogPage:
        build.refresh_from_db(fields=["state"])  # before the log: after its end nothing is added
        return services.read_log(build, offset)

    return poll(read, lambda page: bool(page.text) or page.ended, wait)

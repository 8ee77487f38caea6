"""Builds of kernels over HTTP. Starting one is for those who administer."""

from __future__ import annotations

from typing import Annotated

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from builds import services
from builds.models import KernelBuild
from builds.schemas import BuildLog
from builds.schemas.builds import BuildState
from builds.schemas.kernels import (
    BuildKernel,
    CheckKernelVersion,
    KernelBuildDetail,
    KernelBuildOut,
)
from builds.services import LogPage
from nexus_site.core.http import STARTED, carry_out, poll
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.problems import BearerToken
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()

BUILDS = KernelBuild.objects.select_related("kernel")


class KernelBuildQuery(PageQuery):
    state: BuildState | None = None


@router.post("/kernel-versions/check", response=STARTED)
def check_kernel_version(
    request: HttpRequest,
    query: Query[ChangeQuery],
    data: CheckKernelVersion = CheckKernelVersion(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Ask whether a version is available, its signed checksum ready, and it can be built here.

    The operation's result says so.
    """
    return carry_out(request, query, lambda: services.check_kernel_version(data.version))


@router.post("/kernel-builds", response=STARTED, auth=BearerToken("admin"))
def build_kernel(
    request: HttpRequest, data: BuildKernel, query: Query[ChangeQuery]
) -> HttpResponse:
    """Build a kernel from source and boot it once on each VMM that works here."""
    return carry_out(request, query, lambda: services.start_kernel_build(**data.model_dump()))


@router.get("/kernel-builds", response=Page[KernelBuildOut])
def list_kernel_builds(request: HttpRequest, query: Query[KernelBuildQuery]) -> Slice:
    rows = BUILDS.filter(state=query.state) if query.state else BUILDS.all()
    return paginate(rows.defer("fragment_text"), query, "-created_at")


@router.get("/kernel-builds/{ref}", response=KernelBuildDetail)
def get_kernel_build(request: HttpRequest, ref: str) -> KernelBuild:
    """A build of a kernel, with its options."""
    return resolve(BUILDS.all(), ref)


@router.get("/kernel-builds/{ref}/log", response=BuildLog)
def get_kernel_build_log(
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

"""The pages of builds of kernels."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_safe

from builds.models import KernelBuild
from builds.views.builds import end_of_log
from nexus_site.core.htmx import Request, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.models import Operation

COLUMNS = {
    "version": Column("Version", "version"),
    "id": Column("Build", "", "hide-a"),
    "state": Column("State", "state"),
    "fragment": Column("Options", "fragment", "hide-b"),
    "created": Column("Started", "created_at"),
    "took": Column("Took", "", "num hide-a"),
}
BUILDS = KernelBuild.objects.select_related("kernel")


@require_safe
@page()
def kernel_build_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        BUILDS.defer("fragment_text"),
        columns=COLUMNS,
        sort="-created",
        search=("version", "fragment", "source"),
        states=KernelBuild.State.values,
    )
    context = {"area": "kernels", "listing": listing}
    fragments = ("builds/_kernel_builds.html",)
    return render_page(request, "builds/kernel_builds.html", context, fragments=fragments)


@require_safe
@page()
def kernel_build_detail(request: Request, ref: str) -> HttpResponse:
    """One build of a kernel: its steps, its log as it grows, what came of it."""
    build = resolve(BUILDS, ref)
    context = {
        "area": "kernels",
        "build": build,
        "operation": Operation.objects.filter(pk=build.operation_id).first(),
        "log": end_of_log(request, build),
    }
    fragments = ("builds/_kernel_build.html",)
    return render_page(request, "builds/kernel_build.html", context, fragments=fragments)

"""The pages of kernels: those that are here, those that can be had, how fast guests come up."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.http import HttpResponse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from images import services
from images.forms import DownloadKernelForm
from images.models import Kernel
from images.providers.kernels import NAMES
from nexus_site.core.dialogs import Dialog, Listed
from nexus_site.core.errors import NotFound
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve

FRAGMENTS = (
    "images/_kernels.html",
    "images/_kernel_scores.html",
    "images/_kernel_offers.html",
)
#: Offers that the page shows; others are downloaded by their version.
NEWEST = 10


@require_safe
@page()
def kernel_list(request: Request) -> HttpResponse:
    kernels = services.with_kernel_vms(Kernel.objects.all())
    known = services.list_kernel_offers()
    versions = {kernel.version for kernel in kernels}
    offers = [offer for offer in known.offers if offer.version not in versions]
    context = {
        "area": "kernels",
        "rows": [_row(kernel) for kernel in kernels],
        "news": services.kernel_news(kernels),
        "scores": services.kernel_scores(),
        "known": known,
        "offers": offers[:NEWEST],
        "older": len(offers[NEWEST:]),
    }
    return render_page(request, "images/kernels.html", context, fragments=FRAGMENTS)


@require_safe
@page()
def kernel_detail(request: Request, ref: str) -> HttpResponse:
    """One kernel: where it comes from, its boots, its options, and who uses it."""
    (kernel,) = services.with_kernel_vms([_kernel(ref)])
    context = _row(kernel) | {
        "area": "kernels",
        "scores": services.kernel_scores(kernel),
        "config": _config(kernel),
        "others": Kernel.objects.exclude(pk=kernel.pk),
    }
    if other := request.GET.get("with", ""):
        context["diff"] = services.diff_kernels(_kernel(other), kernel)
    fragments = ("images/_kernel.html",)
    return render_page(request, "images/kernel.html", context, fragments=fragments)


@require_http_methods(["GET", "POST"])
@page("admin")
def download_kernel(request: Request) -> HttpResponse:
    """Takes ``version``, ``provider`` and ``path``; asks with those in the query."""

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.download_kernel(data["version"], data["provider"], data["path"])
        return toast(request, operation.title, operation=operation)

    names = ("version", "provider", "path")
    initial = {name: request.GET[name] for name in names if name in request.GET}
    text = "It is checked, booted once on each VMM, and kept beside the others."
    dialog = Dialog("Download a kernel", "Download", text)
    return dialog.answer(request, submit, DownloadKernelForm, initial)


@require_http_methods(["GET", "POST"])
@page("admin")
def use_kernel(request: Request, ref: str) -> HttpResponse:
    kernel = _kernel(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        services.use_kernel(kernel)
        return toast(request, f"VMs start with {kernel.name} from now on.")

    text = (
        "VMs that are not pinned to another start with it from now on. Those that run stay on "
        "theirs until they stop."
    )
    return Dialog(f"Use {kernel.name}?", "Use it", text).answer(request, submit)


@require_http_methods(["GET", "POST"])
@page("admin")
def remove_kernel(request: Request, ref: str) -> HttpResponse:
    """Refused, with their names, while VMs need it."""
    (kernel,) = services.with_kernel_vms([_kernel(ref)])

    def submit(data: dict[str, Any]) -> HttpResponse:
        services.remove_kernel(kernel)
        return go_to(request, "/kernels/", f"{kernel.name} is removed.")

    lists = [
        Listed(title, names)
        for title, names in (
            ("VMs that run it: stop them first", kernel.running_vms),
            ("VMs that always start with it: give them another first", kernel.pinned_vms),
        )
        if names
    ]
    text = (
        "It is the default: use another one first."
        if kernel.is_default
        else "It is not the default: VMs start as before."
    )
    dialog = Dialog(f"Remove {kernel.name}?", "Remove", text, danger=True, lists=lists)
    return dialog.answer(request, submit)


@require_POST
@page()
def verify_kernel(request: Request, ref: str) -> HttpResponse:
    """Takes ``boot``: also boot it on each VMM."""
    operation = services.verify_kernel(_kernel(ref), boot="boot" in request.POST)
    return toast(request, operation.title, operation=operation)


@require_POST
@page("admin")
def refresh_kernels(request: Request) -> HttpResponse:
    operation = services.refresh_kernels()
    return toast(request, operation.title, operation=operation)


def _kernel(ref: str) -> Kernel:
    return resolve(Kernel.objects.all(), ref)


def _row(kernel: Kernel) -> dict[str, Any]:
    """What list and page show of a kernel; ``path`` is a part of a URL."""
    path = quote(kernel.source) if kernel.source.startswith("/") else ""
    boots = [{"vmm": vmm, **found} for vmm, found in sorted(kernel.boots.items())]
    startable = kernel.state == Kernel.State.GOOD or kernel.provider == "embedded"
    return {
        "kernel": kernel,
        "there": services.is_here(kernel),
        "usable": startable and not kernel.is_default,
        "fetched": kernel.provider in NAMES,
        "path": path,
        "boots": boots,
    }


def _config(kernel: Kernel) -> str:
    try:
        return services.kernel_config(kernel)
    except NotFound:
        return ""

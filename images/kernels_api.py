"""Kernels over HTTP. Changing which there are is for those who administer."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from images import services
from images.kernel_schemas import (
    DownloadKernel,
    KernelConfigOut,
    KernelDiffOut,
    KernelOffersOut,
    KernelScoreOut,
    VerifyKernel,
)
from images.models import Kernel
from images.schemas import KernelOut
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.problems import BearerToken
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()


@router.get("/kernels", response=Page[KernelOut])
def list_kernels(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    """The kernels on this host, with the VMs that use each."""
    found = paginate(Kernel.objects.all(), query, "-created_at", "name")
    services.with_kernel_vms(found["items"])
    return found


@router.post("/kernels", response=STARTED, auth=BearerToken("admin"))
def download_kernel(
    request: HttpRequest, data: DownloadKernel, query: Query[ChangeQuery]
) -> HttpResponse:
    """Bring a kernel here and boot it once on each VMM; it is good if it boots."""
    return carry_out(
        request,
        query,
        lambda: services.download_kernel(data.version, data.provider, data.path),
    )


@router.get("/kernels/available", response=KernelOffersOut)
def list_available_kernels(request: HttpRequest) -> dict[str, Any]:
    """The kernels that can be had for this host's architecture, as far as is known."""
    known = services.list_kernel_offers()
    kernels = list(Kernel.objects.all())
    kept = {kernel.version for kernel in kernels}
    items = [
        {
            "version": offer.version,
            "arch": offer.arch,
            "provider": offer.provider,
            "size_bytes": offer.size_bytes,
            "source": offer.source,
            "installed": offer.version in kept,
        }
        for offer in known.offers
    ]
    return {
        "items": items,
        "next_cursor": None,
        "refreshed_at": known.refreshed_at,
        "problem": known.problem,
        "news": services.kernel_news(kernels),
    }


@router.post("/kernels/available/refresh", response=STARTED, auth=BearerToken("admin"))
def refresh_kernels(request: HttpRequest, query: Query[ChangeQuery]) -> HttpResponse:
    """Ask the publishers what there is now."""
    return carry_out(request, query, services.refresh_kernels)


@router.get("/kernel-scores", response=list[KernelScoreOut])
def list_kernel_scores(request: HttpRequest, kernel: str = "") -> list[services.Score]:
    """Seconds to ready and failures by kernel, image and VMM, from real boots; of one
    ``kernel`` or of all."""
    return services.kernel_scores(resolve(Kernel.objects.all(), kernel) if kernel else None)


@router.get("/kernels/{ref}", response=KernelOut)
def get_kernel(request: HttpRequest, ref: str) -> Kernel:
    return _found(ref)


@router.get("/kernels/{ref}/config", response=KernelConfigOut)
def get_kernel_config(request: HttpRequest, ref: str) -> dict[str, str]:
    """The options that a kernel was built with."""
    return {"text": services.kernel_config(_found(ref))}


@router.get("/kernels/{ref}/diff/{other}", response=KernelDiffOut)
def diff_kernels(request: HttpRequest, ref: str, other: str) -> services.KernelDiff:
    """How ``other`` differs from a kernel: options, size and boot times."""
    return services.diff_kernels(_found(ref), _found(other))


@router.post("/kernels/{ref}/use", response=KernelOut, auth=BearerToken("admin"))
def use_kernel(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Start VMs with this kernel from now on; those that run stay on theirs."""
    kernel = _found(ref)
    return carry_out(request, query, lambda: services.use_kernel(kernel), shown_as=KernelOut)


@router.post("/kernels/{ref}/verify", response=STARTED)
def verify_kernel(
    request: HttpRequest, ref: str, data: VerifyKernel, query: Query[ChangeQuery]
) -> HttpResponse:
    """Read the files and compare their checksums; boot it again where that is asked for."""
    kernel = _found(ref)
    return carry_out(request, query, lambda: services.verify_kernel(kernel, boot=data.boot))


@router.delete("/kernels/{ref}", response={204: None}, auth=BearerToken("admin"))
def remove_kernel(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Remove a kernel that no VM runs or is pinned to, and that is not the default."""
    kernel = _found(ref)
    return carry_out(request, query, lambda: services.remove_kernel(kernel))


def _found(ref: str) -> Kernel:
    return services.with_kernel_vms([resolve(Kernel.objects.all(), ref)])[0]

"""Root file systems, kernels and images over HTTP."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from images import services
from images.models import Image, Kernel, Rootfs
from images.schemas import DownloadRootfs, ImageOut, KernelOut, RootfsOfferOut, RootfsOut
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router(tags=["images, root file systems and kernels"])

IMAGES = Image.objects.select_related("rootfs").prefetch_related("builds")


@router.get("/images", response=Page[ImageOut])
def list_images(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(IMAGES.all(), query, "-created_at", "name", "size_bytes")


@router.get("/images/{ref}", response=ImageOut)
def get_image(request: HttpRequest, ref: str) -> Image:
    return resolve(IMAGES.all(), ref)


@router.delete("/images/{ref}", response=STARTED)
def delete_image(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete an image that no drive depends on."""
    image = resolve(IMAGES.all(), ref)
    return carry_out(request, query, lambda: services.delete_image(image))


@router.get("/rootfs", response=Page[RootfsOut])
def list_rootfs(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    """The root file systems that are on this host."""
    return paginate(Rootfs.objects.all(), query, "distro", "-created_at", "size_bytes")


@router.post("/rootfs", response=STARTED)
def download_rootfs(
    request: HttpRequest, data: DownloadRootfs, query: Query[ChangeQuery]
) -> HttpResponse:
    """Fetch a root file system that a provider can deliver."""
    return carry_out(request, query, lambda: services.download_rootfs(data.distro, data.version))


@router.get("/rootfs/available", response=Page[RootfsOfferOut])
def list_available_rootfs(request: HttpRequest) -> dict[str, Any]:
    """What the providers can deliver for this host's architecture, all on one page."""
    kept = set(Rootfs.objects.values_list("distro", "version", "arch", "provider"))
    items = [
        {
            "distro": offer.distro,
            "version": offer.version,
            "arch": offer.arch,
            "provider": offer.provider,
            "size_bytes": offer.size_bytes,
            "installed": (offer.distro, offer.version, offer.arch, offer.provider) in kept,
        }
        for offer in services.list_rootfs_offers()
    ]
    return {"items": items, "next_cursor": None}


@router.get("/rootfs/{ref}", response=RootfsOut)
def get_rootfs(request: HttpRequest, ref: str) -> Rootfs:
    return resolve(Rootfs.objects.all(), ref)


@router.get("/kernels", response=Page[KernelOut])
def list_kernels(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(Kernel.objects.all(), query, "-created_at", "name")


@router.get("/kernels/{ref}", response=KernelOut)
def get_kernel(request: HttpRequest, ref: str) -> Kernel:
    return resolve(Kernel.objects.all(), ref)

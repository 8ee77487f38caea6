"""Images over HTTP; root file systems, kernels and their providers have modules."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from images import contents_api, kernels_api, providers_api, releases_api, rootfs_api, services
from images.models import Image
from images.schemas import ImageDetail, ImageOut, UpdateImage
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router(tags=["images, root file systems and kernels"])
router.add_router("", rootfs_api.router)
router.add_router("", providers_api.router)
router.add_router("", contents_api.router)
router.add_router("", kernels_api.router)
router.add_router("/firecracker", releases_api.router)

IMAGES = Image.objects.select_related("rootfs").prefetch_related("builds")


@router.get("/images", response=Page[ImageOut])
def list_images(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(IMAGES.all(), query, "-created_at", "name", "size_bytes")


@router.get("/images/{ref}", response=ImageDetail)
def get_image(request: HttpRequest, ref: str) -> Image:
    return resolve(IMAGES.prefetch_related("drives__attachment__vm"), ref)


@router.patch("/images/{ref}", response=ImageOut)
def update_image(
    request: HttpRequest, ref: str, data: UpdateImage, query: Query[ChangeQuery]
) -> HttpResponse:
    """Rename an image."""
    image = resolve(IMAGES.all(), ref)
    return carry_out(
        request, query, lambda: services.rename_image(image, data.name), shown_as=ImageOut
    )


@router.delete("/images/{ref}", response=STARTED)
def delete_image(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete an image that no drive depends on."""
    image = resolve(IMAGES.all(), ref)
    return carry_out(request, query, lambda: services.delete_image(image))

"""The pages of what VMs boot from: images, distributions (rootfs), kernels."""

from __future__ import annotations

from django.db.models import Count, QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_POST, require_safe

from images import services
from images.models import Image, Kernel, Rootfs
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing

COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-b"),
    "os": Column("Distribution", "os_name"),
    "agent": Column("Agent", "agent_version", "hide-b"),
    "drives": Column("Drives", "drive_count", "num"),
    "used": Column("On disk", "used_bytes", "num"),
    "created": Column("Created", "created_at", "hide-a"),
}


def _images() -> QuerySet[Image]:
    """Images with the number of drives made from them."""
    return Image.objects.select_related("rootfs").annotate(drive_count=Count("drives"))


@require_safe
@page()
def image_list(request: Request) -> HttpResponse:
    listing = Listing(
        request,
        _images(),
        columns=COLUMNS,
        sort="-created",
        search=("name", "os_name"),
    )
    context = {"area": "images", "listing": listing}
    return render_page(request, "images/list.html", context, fragments=("images/_table.html",))


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """One image: what it is, how it was made, and where it is used."""
    image = resolve(_images().prefetch_related("builds__template_version__template"), ref)
    context = {
        "area": "images",
        "image": image,
        "drives": image.drives.select_related("attachment__vm").order_by("name"),
    }
    return render_page(request, "images/detail.html", context, fragments=("images/_image.html",))


@require_POST
@page()
def delete(request: Request, ref: str) -> HttpResponse:
    operation = services.delete_image(resolve(Image.objects.all(), ref))
    return go_to(request, reverse("images:list"), f"{operation.title}: under way.")


@require_safe
@page()
def rootfs_list(request: Request) -> HttpResponse:
    """Distributions: those kept here, and those that can be fetched."""
    installed = list(Rootfs.objects.annotate(image_count=Count("images")))
    kept = {(rootfs.distro, rootfs.version, rootfs.arch) for rootfs in installed}
    offers = services.list_rootfs_offers()
    context = {
        "area": "rootfs",
        "installed": installed,
        "available": [o for o in offers if (o.distro, o.version, o.arch) not in kept],
    }
    return render_page(request, "images/rootfs.html", context, fragments=("images/_rootfs.html",))


@require_POST
@page()
def download_rootfs(request: Request) -> HttpResponse:
    operation = services.download_rootfs(
        request.POST.get("distro", ""), request.POST.get("version", "")
    )
    return toast(request, operation.title, operation=operation)


@require_safe
@page()
def kernel_list(request: Request) -> HttpResponse:
    """The kernels kept here and how many VMs name each."""
    kernels = Kernel.objects.annotate(vm_count=Count("vms"))
    context = {"area": "kernels", "kernels": kernels}
    fragments = ("images/_kernels.html",)
    return render_page(request, "images/kernels.html", context, fragments=fragments)

"""The pages of root file systems: what can be fetched, and what is kept here."""

from __future__ import annotations

from dataclasses import dataclass

from django.db.models import Count, QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from images import services, uploads
from images.forms import ImportRootfsForm
from images.models import Rootfs
from images.providers.base import RootfsOffer
from images.services.providers import UPLOAD
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.listing import ValueListing
from nexus_site.core.models import Operation

IMPORT_FORM = "images/_import_rootfs_form.html"


@dataclass(frozen=True)
class Distribution:
    """One line of the list: a root file system that is kept, or the offer of one."""

    about: Rootfs | RootfsOffer
    kept: Rootfs | None = None

    @property
    def state(self) -> str:
        return "kept" if self.kept else "available"

    @property
    def words(self) -> str:
        about = self.about
        return f"{about.distro} {about.version} {about.provider} {about.arch} {about.source}"


@require_safe
@page()
def rootfs_list(request: Request) -> HttpResponse:
    """Distributions: those kept here first, then those that can be fetched."""
    rows = list(_kept())
    kept = {(row.distro, row.version, row.arch, row.provider) for row in rows}
    offers = services.list_rootfs_offers()
    lines = [Distribution(row, row) for row in rows] + [
        Distribution(offer)
        for offer in offers
        if (offer.distro, offer.version, offer.arch, offer.provider) not in kept
    ]
    listing = ValueListing(
        request,
        lines,
        words=lambda line: line.words,
        states=("kept", "available"),
        state_of=lambda line: line.state,
    )
    context = {"area": "rootfs", "listing": listing}
    return render_page(request, "images/rootfs.html", context, fragments=("images/_rootfs.html",))


@require_safe
@page()
def rootfs_detail(request: Request, ref: str) -> HttpResponse:
    """One root file system: where it is from, what vouches for it, what it is used by."""
    rootfs = resolve(_kept(), ref)
    versions = rootfs.template_versions.select_related("template")
    newest: dict[object, object] = {}
    for version in versions.order_by("template__name", "-number"):
        newest.setdefault(version.template_id, version)
    context = {
        "area": "rootfs",
        "rootfs": rootfs,
        "images": rootfs.images.order_by("name"),
        "versions": list(newest.values()),
        "file_there": services.rootfs_path(rootfs).exists(),
        "uploaded": rootfs.provider == UPLOAD,
    }
    fragments = ("images/_rootfs_detail.html",)
    return render_page(request, "images/rootfs_detail.html", context, fragments=fragments)


@require_POST
@page()
def download_rootfs(request: Request) -> HttpResponse:
    wish = [request.POST.get(name, "") for name in ("distro", "version", "provider")]
    operation = services.download_rootfs(*wish)
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def verify_rootfs(request: Request, ref: str) -> HttpResponse:
    operation = services.verify_rootfs(resolve(_kept(), ref))
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def delete_rootfs(request: Request, ref: str) -> HttpResponse:
    rootfs = resolve(_kept(), ref)
    services.delete_rootfs(rootfs)
    return go_to(request, reverse("images:rootfs"), f"{rootfs} is deleted.")


@require_http_methods(["GET", "POST"])
@page("operate")
def import_rootfs(request: Request) -> HttpResponse:
    """A root file system from a file of one's own."""
    form = ImportRootfsForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            operation = _import(form)
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, reverse("operation", args=[operation.ref]))
    context = {"area": "rootfs", "form": form}
    status = 422 if form.is_bound else 200
    template = "images/import_rootfs.html"
    return render_page(request, template, context, fragments=(IMPORT_FORM,), status=status)


def _import(form: ImportRootfsForm) -> Operation:
    data = form.cleaned_data
    upload = uploads.receive(data["file"], sha256=data["sha256"], filename=data["file"].name)
    try:
        return services.import_rootfs(
            upload,
            distro=data["distro"],
            version=data["version"],
            checked=bool(data["sha256"]),
        )
    finally:
        uploads.discard_unless_named(upload.ref)


def _kept() -> QuerySet[Rootfs]:
    rows = Rootfs.objects.annotate(image_count=Count("images"))
    return rows.order_by("distro", "-version", "provider")

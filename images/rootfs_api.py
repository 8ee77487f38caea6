"""Root file systems over HTTP."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from images import services, uploads
from images.models import Rootfs
from images.schemas import DownloadRootfs, RootfsOfferOut, RootfsOut
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()
_BINARY = {"schema": {"type": "string", "format": "binary"}}


class ImportRootfsQuery(ChangeQuery):
    """What is uploaded, and how to carry it out."""

    distro: str = Field(min_length=1, max_length=40)
    version: str = Field(min_length=1, max_length=40)
    format: str = Field("", max_length=20, description="Left out, it is found by looking.")
    sha256: str = Field("", pattern="^([0-9a-fA-F]{64})?$", description="Refused if it differs.")
    filename: str = Field("", max_length=200, description="Where it comes from, for people.")


class RootfsQuery(PageQuery):
    distro: str = ""
    provider: str = ""


@router.get("/rootfs", response=Page[RootfsOut])
def list_rootfs(request: HttpRequest, query: Query[RootfsQuery]) -> Slice:
    """The root file systems that are on this host."""
    rows = Rootfs.objects.all()
    if query.distro:
        rows = rows.filter(distro=query.distro.lower())
    if query.provider:
        rows = rows.filter(provider=query.provider)
    return paginate(rows, query, "distro", "-created_at", "size_bytes")


@router.post("/rootfs", response=STARTED)
def download_rootfs(
    request: HttpRequest, data: DownloadRootfs, query: Query[ChangeQuery]
) -> HttpResponse:
    """Fetch a root file system, from the first provider that has it or from a certain one."""
    return carry_out(
        request,
        query,
        lambda: services.download_rootfs(data.distro, data.version, data.provider),
    )


@router.get("/rootfs/available", response=Page[RootfsOfferOut])
def list_available_rootfs(request: HttpRequest) -> dict[str, Any]:
    """What the providers can deliver for this host's architecture, all on one page."""
    kept = set(Rootfs.objects.values_list("distro", "version", "arch", "provider"))
    items = [
        {
            "distro": offer.distro,
            "version": offer.version,
            "aliases": list(offer.aliases),
            "arch": offer.arch,
            "provider": offer.provider,
            "format": offer.format,
            "size_bytes": offer.size_bytes,
            "source": offer.source,
            "installed": (offer.distro, offer.version, offer.arch, offer.provider) in kept,
        }
        for offer in services.list_rootfs_offers()
    ]
    return {"items": items, "next_cursor": None}


@router.post(
    "/rootfs/import",
    response=STARTED,
    openapi_extra={
        "requestBody": {"required": True, "content": {"application/octet-stream": _BINARY}}
    },
)
def import_rootfs(request: HttpRequest, query: Query[ImportRootfsQuery]) -> HttpResponse:
    """Keep the file in the request's body as a root file system."""
    upload = uploads.receive(request, sha256=query.sha256, filename=query.filename)
    try:
        return carry_out(
            request,
            query,
            lambda: services.import_rootfs(
                upload,
                distro=query.distro,
                version=query.version,
                format=query.format,
                checked=bool(query.sha256),
            ),
            content=f"{upload.sha256} {query.distro} {query.version} {query.format}",
        )
    finally:  # refused, a dry run, or the second time that the same was sent
        uploads.discard_unless_named(upload.ref)


@router.get("/rootfs/{ref}", response=RootfsOut)
def get_rootfs(request: HttpRequest, ref: str) -> Rootfs:
    return resolve(Rootfs.objects.all(), ref)


@router.post("/rootfs/{ref}/verify", response=STARTED)
def verify_rootfs(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Read the file again and compare its checksum with the one of the day it came."""
    rootfs = resolve(Rootfs.objects.all(), ref)
    return carry_out(request, query, lambda: services.verify_rootfs(rootfs))


@router.delete("/rootfs/{ref}", response={204: None})
def delete_rootfs(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a root file system that no template and no image needs."""
    rootfs = resolve(Rootfs.objects.all(), ref)
    return carry_out(request, query, lambda: services.delete_rootfs(rootfs))

"""Releases of Firecracker over HTTP. Changing which there are is for those who administer."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from images import services
from images.models import VmmRelease
from images.schemas import DownloadRelease, ReleaseOffersOut, VmmReleaseOut
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.problems import BearerToken
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()


@router.get("/releases", response=ReleaseOffersOut)
def list_firecracker_releases(request: HttpRequest) -> dict[str, Any]:
    """The releases that can be downloaded for this host's architecture, as far as is known."""
    known = services.list_release_offers()
    kept = set(services.installed_releases().values_list("version", flat=True))
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
    }


@router.post("/releases/refresh", response=STARTED, auth=BearerToken("admin"))
def refresh_firecracker_releases(request: HttpRequest, query: Query[ChangeQuery]) -> HttpResponse:
    """Ask the publisher what there is now."""
    return carry_out(request, query, services.refresh_releases)


@router.get("/installed", response=Page[VmmReleaseOut])
def list_installed_firecracker(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    """The releases that are on this host, with the VMs that run on each."""
    found = paginate(services.installed_releases(), query, "-created_at", "size_bytes")
    services.with_running_vms(found["items"])
    return found


@router.post("/installed", response=STARTED, auth=BearerToken("admin"))
def download_firecracker(
    request: HttpRequest, data: DownloadRelease, query: Query[ChangeQuery]
) -> HttpResponse:
    """Bring a release here; the first one becomes the default."""
    return carry_out(
        request,
        query,
        lambda: services.download_release(data.version, data.provider, data.path),
    )


@router.get("/installed/{ref}", response=VmmReleaseOut)
def get_installed_firecracker(request: HttpRequest, ref: str) -> VmmRelease:
    """One release, by its ID or its version."""
    return services.with_running_vms([services.find_release(ref)])[0]


@router.post("/installed/{ref}/use", response=VmmReleaseOut, auth=BearerToken("admin"))
def use_firecracker(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Start VMs with this release from now on; those that run stay on theirs."""
    (release,) = services.with_running_vms([services.find_release(ref)])
    return carry_out(request, query, lambda: services.use_release(release), shown_as=VmmReleaseOut)


@router.delete("/installed/{ref}", response={204: None}, auth=BearerToken("admin"))
def remove_firecracker(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Remove a release that no VM runs on; the newest of the others becomes the default."""
    release = services.find_release(ref)
    return carry_out(request, query, lambda: services.remove_release(release))

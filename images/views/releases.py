"""The page of Firecracker's releases: those that are here, and those that can be had."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from django.http import HttpResponse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from images import services
from images.forms import DownloadReleaseForm
from images.models import VmmRelease
from images.providers.base import version_key
from nexus_site.core.dialogs import Dialog, Listed
from nexus_site.core.htmx import Request, page, render_page, toast

FRAGMENTS = ("images/_firecracker.html", "images/_firecracker_offers.html")
#: Offers that the page shows; older ones are downloaded by their version.
NEWEST = 10


@require_safe
@page()
def release_list(request: Request) -> HttpResponse:
    kept = services.with_running_vms(services.installed_releases())
    kept.sort(key=lambda row: (row.is_default, version_key(row.version)), reverse=True)
    known = services.list_release_offers()
    versions = {release.version for release in kept}
    offers = [offer for offer in known.offers if offer.version not in versions]
    context = {
        "area": "firecracker",
        "rows": [
            {"release": row, "files": services.release_files(row), "path": _path(row)}
            for row in kept
        ],
        "known": known,
        "offers": offers[:NEWEST],
        "older": len(offers[NEWEST:]),
    }
    return render_page(request, "images/firecracker.html", context, fragments=FRAGMENTS)


@require_http_methods(["GET", "POST"])
@page("admin")
def download_release(request: Request) -> HttpResponse:
    """Takes ``version``, ``provider`` and ``path``; asks with those in the query."""

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.download_release(data["version"], data["provider"], data["path"])
        return toast(request, operation.title, operation=operation)

    names = ("version", "provider", "path")
    initial = {name: request.GET[name] for name in names if name in request.GET}
    text = "It is checked, started once to see that it runs here, and kept beside the others."
    dialog = Dialog("Download Firecracker", "Download", text)
    return dialog.answer(request, submit, DownloadReleaseForm, initial)


@require_http_methods(["GET", "POST"])
@page("admin")
def use_release(request: Request, ref: str) -> HttpResponse:
    release = services.find_release(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        services.use_release(release)
        return toast(request, f"VMs start with {release} from now on.")

    text = "VMs start with it from now on. Those that run stay on theirs until they stop."
    return Dialog(f"Use {release}?", "Use it", text).answer(request, submit)


@require_http_methods(["GET", "POST"])
@page("admin")
def remove_release(request: Request, ref: str) -> HttpResponse:
    """Refused, with their names, while VMs run on it."""
    release = services.find_release(ref)
    names = services.release_users().get(release.version, [])

    def submit(data: dict[str, Any]) -> HttpResponse:
        services.remove_release(release)
        return toast(request, f"{release} is removed.")

    dialog = Dialog(
        f"Remove {release}?",
        "Remove",
        _what_follows(release),
        danger=True,
        lists=[Listed("VMs that run on it: stop them first", sorted(names))] if names else (),
    )
    return dialog.answer(request, submit)


@require_POST
@page("admin")
def refresh_releases(request: Request) -> HttpResponse:
    operation = services.refresh_releases()
    return toast(request, operation.title, operation=operation)


def _path(release: VmmRelease) -> str:
    """The path that it was taken from, as a part of a URL; empty where there was none."""
    return quote(release.source) if release.source.startswith("/") else ""


def _what_follows(release: VmmRelease) -> str:
    """What its removal means for VMs that start afterwards."""
    if not release.is_default:
        return "It is not the default: VMs start as before."
    if heir := services.next_default(release):
        return f"It is the default. {heir} takes its place."
    return "It is the only one. Without it VMs start with QEMU."

"""The page of a snapshot of a drive, and its buttons. Rolling back is in ``vms.views``."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from drives import services
from drives.forms import RenameForm
from nexus_site.core.dialogs import Dialog
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.operations import open_operations
from nexus_site.core.streaming import Download


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """One snapshot: what it is, what came after it, what was made of it."""
    snapshot = resolve(services.all_snapshots(), ref)
    context = {
        "area": "drives",
        "snapshot": snapshot,
        "children": snapshot.children.order_by("created_at"),
        "clones": services.made_of(snapshot).select_related("attachment__vm"),
        "running": open_operations(snapshot),
    }
    fragments = ("drives/_snapshot.html",)
    return render_page(request, "drives/snapshot.html", context, fragments=fragments)


@require_http_methods(["GET", "POST"])
@page("operate")
def rename(request: Request, ref: str) -> HttpResponse:
    snapshot = resolve(services.snapshot_list(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        renamed = services.rename_snapshot(snapshot, data["name"])
        return toast(request, f"It is called {renamed.name} now.")

    dialog = Dialog(f"Rename {snapshot.name}", "Rename")
    return dialog.answer(request, submit, RenameForm, {"name": snapshot.name})


@require_http_methods(["GET", "POST"])
@page("operate")
def delete(request: Request, ref: str) -> HttpResponse:
    snapshot = resolve(services.snapshot_list(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.delete_snapshot(snapshot)
        url = reverse("drives:detail", args=[snapshot.drive.ref])
        return go_to(request, url, f"{operation.title}: under way.")

    dialog = Dialog(
        f"Delete the snapshot {snapshot.name}?",
        "Delete",
        f"What {snapshot.drive.name} was like then is lost. The drive itself, other snapshots "
        "and drives made of this one stay.",
        danger=True,
        plan=lambda: services.delete_snapshot(snapshot),
    )
    return dialog.answer(request, submit)


@require_safe
@page()
def export(request: Request, ref: str) -> Download:
    """The snapshot as a file to keep."""
    found = services.export_snapshot(resolve(services.snapshot_list(), ref))
    return Download(found.pieces, found.filename)

"""The list of drives, the page of one, and its buttons.

New drives, attaching, detaching and rolling back lead up the house: ``vms.views``.
"""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST, require_safe

from drives import services
from drives.forms import MIB, NewNameForm, RenameForm, ResizeDriveForm
from drives.models import Drive, Snapshot
from drives.trees import tree
from nexus_site.core.dialogs import Dialog, Listed
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.operations import open_operations
from nexus_site.core.streaming import Download

COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-a"),
    "state": Column("State", "state"),
    "vm": Column("Attached to", "attachment__vm__name"),
    "image": Column("Image", "image__name", "hide-b"),
    "size": Column("Size", "size_bytes", "num"),
    "created": Column("Created", "created_at", "hide-b"),
}
DETAIL_FRAGMENTS = ("drives/_drive.html",)


@require_safe
@page()
def drive_list(request: Request) -> HttpResponse:
    rows = services.drive_list()
    listing = Listing(request, rows, columns=COLUMNS, sort="-created", states=Drive.State.values)
    context = {"area": "drives", "listing": listing}
    return render_page(request, "drives/list.html", context, fragments=("drives/_table.html",))


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """Everything about one drive."""
    drive = resolve(services.all_drives(), ref)
    snapshots = services.all_snapshots().filter(drive=drive).order_by("created_at")
    context = {
        "area": "drives",
        "drive": drive,
        "usage": services.usage_of(drive),
        "lines": tree(snapshots, drive.head_id),
        "clones": services.made_of(drive).select_related("source_snapshot"),
        "running": open_operations(drive),
    }
    return render_page(request, "drives/detail.html", context, fragments=DETAIL_FRAGMENTS)


@require_http_methods(["GET", "POST"])
@page("operate")
def rename(request: Request, ref: str) -> HttpResponse:
    drive = resolve(services.drive_list(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        renamed = services.rename_drive(drive, data["name"])
        return toast(request, f"It is called {renamed.name} now.")

    dialog = Dialog(f"Rename {drive.name}", "Rename")
    return dialog.answer(request, submit, RenameForm, {"name": drive.name})


@require_http_methods(["GET", "POST"])
@page("operate")
def resize(request: Request, ref: str) -> HttpResponse:
    drive = resolve(services.drive_list(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.resize_drive(drive, data["size_mib"])
        return toast(request, operation.title, operation=operation)

    text = "The file system on it grows with it. Its guest sees the new size at its next start."
    dialog = Dialog(f"Resize {drive.name}", "Resize", text)
    return dialog.answer(request, submit, ResizeDriveForm, {"size_mib": drive.size_bytes // MIB})


@require_POST
@page()
def keep(request: Request, ref: str) -> HttpResponse:
    """Whether it goes with its VM: with ``delete_with_vm`` it does."""
    drive = resolve(services.drive_list(), ref)
    services.set_delete_with_vm(drive, "delete_with_vm" in request.POST)
    goes = "is deleted with its VM" if drive.delete_with_vm else "stays when its VM is deleted"
    return toast(request, f"{drive.name} {goes}.")


@require_http_methods(["GET", "POST"])
@page("operate")
def snapshot(request: Request, ref: str) -> HttpResponse:
    drive = resolve(services.drive_list(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.take_snapshot(drive, name=data["name"])
        return toast(request, operation.title, operation=operation)

    text = "Keeps what is on it now. A VM that runs stands still meanwhile, for a moment."
    dialog = Dialog(f"Take a snapshot of {drive.name}", "Take snapshot", text)
    return dialog.answer(request, submit, NewNameForm)


@require_http_methods(["GET", "POST"])
@page("operate")
def delete(request: Request, ref: str) -> HttpResponse:
    """Delete it for good, and its snapshots, which the dialog lists."""
    drive = resolve(services.drive_list(), ref)
    snapshots = list(drive.snapshots.order_by("created_at"))

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.delete_drive(drive, with_snapshots=bool(snapshots))
        return go_to(request, reverse("drives:list"), f"{operation.title}: under way.")

    dialog = Dialog(
        f"Delete the drive {drive.name}?",
        "Delete",
        "All data on it is lost. This cannot be taken back.",
        danger=True,
        lists=_listed("Its snapshots go too", snapshots),
        plan=lambda: services.delete_drive(drive, with_snapshots=True),
    )
    return dialog.answer(request, submit)


def _listed(title: str, snapshots: list[Snapshot]) -> list[Listed]:
    return [Listed(title, [str(row) for row in snapshots])] if snapshots else []


@require_safe
@page()
def export(request: Request, ref: str) -> Download:
    """The drive as a file to keep."""
    found = services.export_drive(resolve(services.drive_list(), ref))
    return Download(found.pieces, found.filename)

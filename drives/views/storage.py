"""The page of the storage: where drives are, how full it is, and whether all is well."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.views.decorators.http import require_http_methods, require_safe

from drives import services
from drives.models import Drive
from drives.storage import Usage
from nexus_site.core.dialogs import Dialog, Listed
from nexus_site.core.htmx import Request, page, render_page, toast
from nexus_site.core.listing import Column, ValueListing

COLUMNS = {
    "name": Column("Drive", "name"),
    "vm": Column("Attached to", "vm", "hide-b"),
    "size": Column("Size", "size_bytes", "num"),
    "used": Column("Used", "used_bytes", "num"),
    "own": Column("Its own", "exclusive_bytes", "num"),
    "shared": Column("Shared", "shared_bytes", "num"),
    "snapshots": Column("Snapshots", "snapshots", "num hide-a"),
}
FRAGMENTS = ("drives/_storage.html", "drives/_storage_table.html")


@dataclass(frozen=True)
class Row:
    """A drive with what it and its snapshots take."""

    drive: Drive
    usage: Usage | None
    snapshots: int


@require_safe
@page()
def storage(request: Request) -> HttpResponse:
    status = services.storage_status()
    taken = Counter(cost.row.drive_id for cost in status.snapshots)
    rows = [Row(cost.row, cost.usage, taken[cost.row.pk]) for cost in status.drives]
    listing = ValueListing(
        request,
        rows,
        words=lambda row: f"{row.drive.name} {row.drive.ref}",
        columns=COLUMNS,
        sort="-used",
        key=_sort_key,
    )
    context = {"area": "storage", "status": status, "listing": listing}
    return render_page(request, "drives/storage.html", context, fragments=FRAGMENTS)


def _sort_key(row: Row, field: str) -> Any:
    if field == "name":
        return row.drive.name
    if field == "vm":
        return row.drive.attachment.vm.name if hasattr(row.drive, "attachment") else None
    if field == "size_bytes":
        return row.drive.size_bytes
    return row.snapshots if field == "snapshots" else getattr(row.usage, field, None)


@require_safe
@page()
def check(request: Request) -> HttpResponse:
    """What does not fit together, database against disk; changes nothing."""
    context = {"area": "storage", "report": services.check_storage()}
    fragments = ("drives/_storage_check.html",)
    return render_page(request, "drives/storage_check.html", context, fragments=fragments)


@require_http_methods(["GET", "POST"])
@page("admin")
def repair(request: Request) -> HttpResponse:
    """Asks before it does what the check proposes."""

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.repair_storage()
        return toast(request, operation.title, operation=operation)

    problems = services.check_storage().problems
    repairs = [f"{problem.name}: {problem.repair}" for problem in problems]
    dialog = Dialog(
        "Repair the storage?",
        "Repair",
        "What is deleted cannot be brought back." if problems else "There is nothing to repair.",
        danger=True,
        lists=[Listed("What will be done", repairs)] if problems else (),
    )
    return dialog.answer(request, submit)

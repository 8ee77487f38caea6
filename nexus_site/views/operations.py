"""What is being done and what was done."""

from __future__ import annotations

from django.http import HttpResponse
from django.views.decorators.http import require_POST, require_safe

from nexus_site.core import operations
from nexus_site.core.errors import Conflict
from nexus_site.core.htmx import Request, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.models import Event, Operation

COLUMNS = {
    "title": Column("Operation", "title"),
    "state": Column("State", "state"),
    "subject": Column("About", "subject_name", "hide-a"),
    "actor": Column("By", "actor", "hide-b"),
    "created": Column("Opened", "created_at"),
    "took": Column("Took", "", "num hide-a"),
}
EVENT_COLUMNS = {
    "seq": Column("No.", "seq", "num hide-b"),
    "at": Column("When", "at"),
    "subject": Column("About", "subject_name"),
    "what": Column("What happened", ""),
    "actor": Column("By", "actor", "hide-a"),
}
SUBJECT_KINDS = (
    "vm drive snapshot image build template rootfs provider kernel operation token".split()
)


@require_safe
@page()
def operation_list(request: Request) -> HttpResponse:
    """Operations that are not parts of others; ``?kind=vm.start`` narrows them."""
    rows = Operation.objects.filter(parent=None)
    if kind := request.GET.get("kind"):
        rows = rows.filter(kind=kind)
    listing = Listing(
        request,
        rows,
        columns=COLUMNS,
        sort="-created",
        search=("title", "kind", "subject_name"),
        search_ids=("pk", "subject_id"),
        states=Operation.State.values,
    )
    context = {"area": "operations", "listing": listing, "kind": kind}
    fragments = ("operations/_table.html",)
    return render_page(request, "operations/list.html", context, fragments=fragments)


@require_safe
@page()
def operation_detail(request: Request, ref: str) -> HttpResponse:
    """One operation with its steps and those of its parts."""
    rows = Operation.objects.select_related("parent").prefetch_related("children")
    operation = resolve(rows, ref)
    context = {"area": "operations", "operation": operation, "parts": operation.children.all()}
    fragments = ("operations/_operation.html",)
    return render_page(request, "operations/detail.html", context, fragments=fragments)


@require_safe
@page()
def operation_toast(request: Request, ref: str) -> HttpResponse:
    """The note in the corner that follows an operation."""
    operation = resolve(Operation.objects.all(), ref)
    return render_page(request, "_toast.html", {"operation": operation})


@require_safe
@page()
def activity(request: Request) -> HttpResponse:
    """The number of open operations, beside the navigation's item."""
    return render_page(request, "operations/_activity.html")


@require_POST
@page()
def cancel_operation(request: Request, ref: str) -> HttpResponse:
    operation = resolve(Operation.objects.all(), ref)
    if operation.ended:
        raise Conflict(f"It has {operation.state} already.", code="operation-ended")
    operations.cancel(operation)
    return toast(request, "It stops at its next step and takes back what it did.")


@require_safe
@page()
def event_list(request: Request) -> HttpResponse:
    """The event log, newest first; without the steps of operations unless asked for."""
    rows = Event.objects.all()
    if "all" not in request.GET:
        rows = rows.exclude(kind="operation.progressed")
    listing = Listing(
        request,
        rows,
        columns=EVENT_COLUMNS,
        sort="-seq",
        search=("kind", "subject_name", "actor"),
        search_ids=("subject_id", "operation_id"),
        states=SUBJECT_KINDS,
        state_field="subject_kind",
        page_size=50,
    )
    context = {"area": "events", "listing": listing, "all": "all" in request.GET}
    return render_page(request, "events/list.html", context, fragments=("events/_table.html",))

"""The list of VMs and the page of one."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, OuterRef, QuerySet, Subquery
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from drives.models import Drive, Snapshot
from drives.trees import tree
from nexus_site.core.htmx import Request, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operations
from nexus_site.core.terminal import plain_text
from vms import queries, services
from vms.choice import expectation
from vms.forms import RenameForm
from vms.models import VM, Boot, Transition, VMSnapshot
from vms.states import WITH_VMM, State

COLUMNS = {
    "name": Column("Name", "name"),
    "id": Column("ID", "", "hide-b"),
    "state": Column("State", "state"),
    "image": Column("Image", "", "hide-a"),
    "vcpu": Column("vCPU", "vcpu_count", "num"),
    "memory": Column("Memory", "mem_size_mib", "num"),
    "uptime": Column("Up", "launched_at", "hide-a"),
    "vmm": Column("On", "vmm", "hide-c"),
    "agent": Column("Agent", "", "hide-c"),
    "created": Column("Created", "created_at", "hide-c"),
}
HISTORY_SHOWN = 40
LIST_FRAGMENTS = ("vms/_table.html",)
DETAIL_FRAGMENTS = (
    "vms/_header.html",
    "vms/_now.html",
    "vms/_facts.html",
    "vms/_snapshots.html",
    "vms/_history.html",
    "vms/_drives.html",
    "vms/_boots.html",
    "vms/_operations.html",
    "vms/_danger.html",
    "vms/_dialogs.html",
)


@require_safe
@page()
def vm_list(request: Request) -> HttpResponse:
    """VMs, and above them those that are being set up."""
    rows = with_launch(queries.vm_list())
    listing = Listing(request, rows, columns=COLUMNS, sort="-created", states=State.values)
    context = {"area": "vms", "listing": listing, "setting_up": _setting_up(listing)}
    return render_page(request, "vms/list.html", context, fragments=LIST_FRAGMENTS)


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """Everything about one VM."""
    vm = resolve(with_launch(queries.vm_detail()), ref)
    boots = list(vm.boots.all())
    drives = [attachment.drive for attachment in vm.attachments.all()]
    context = {
        "area": "vms",
        "vm": vm,
        "boot": boots[0] if boots else None,
        "boots": boots[:8],
        "history": History(vm),
        "running": open_operations(vm),
        "operations": _operations_of(vm)[:8],
        "free_drives": Drive.objects.filter(attachment=None, state=Drive.State.READY),
        "rename_form": RenameForm(initial={"name": vm.name}),
        "next_start": expectation(vm.hypervisor),
        "console_page": _console(request, vm),
        "has_vmm": vm.state in WITH_VMM,
        "has_root": any(attachment.is_root for attachment in vm.attachments.all()),
        "going": [drive for drive in drives if drive.delete_with_vm],
        "staying": [drive for drive in drives if not drive.delete_with_vm],
        "lines": tree(_snapshots(vm), vm.head_id),
        "drive_snapshots": _snapshots_going(vm),
        "no_plug": _why_no_plug(vm),
    }
    return render_page(request, "vms/detail.html", context, fragments=DETAIL_FRAGMENTS)


@require_safe
@page()
def console_text(request: Request, ref: str) -> HttpResponse:
    """The whole console as a file to keep."""
    vm = resolve(VM.objects.all(), ref)
    whole = services.read_console(vm, offset=0, limit=16 * 1024 * 1024)
    response = HttpResponse(whole.text, content_type="text/plain; charset=utf-8")
    response["Content-Disposition"] = f'attachment; filename="{vm.name}-console.log"'
    return response


def _setting_up(listing: Listing[VM]) -> QuerySet[Operation]:
    """The operations that are making a VM which has no row yet, as far as the filter shows them."""
    making = open_operations().filter(kind__startswith="vm.from-", subject_id=None)
    if listing.state:
        return making.none()
    return making.filter(subject_name__icontains=listing.q)


def with_launch(rows: QuerySet[VM]) -> QuerySet[VM]:
    """``rows`` with ``launched_at``: when the VMM that runs now was launched, or None."""
    running = Boot.objects.filter(vm=OuterRef("pk"), ended_at=None).order_by("-number")
    return rows.annotate(launched_at=Subquery(running.values("launched_at")[:1]))


def _operations_of(vm: VM) -> QuerySet[Operation]:
    return Operation.objects.filter(subject_kind="vm", subject_id=vm.pk, parent=None)


def _snapshots(vm: VM) -> QuerySet[VMSnapshot]:
    return vm.snapshots.annotate(part_count=Count("parts")).order_by("created_at")


def _snapshots_going(vm: VM) -> QuerySet[Snapshot]:
    """The snapshots of drives that go with the VM, without those that are parts of its own."""
    going = Snapshot.objects.filter(drive__attachment__vm=vm, drive__delete_with_vm=True)
    return going.filter(part=None).select_related("drive").order_by("created_at")


def _why_no_plug(vm: VM) -> str:
    """Why no drive can come or go now; empty when one can."""
    problem = services.hotplug_problem(vm)
    return f"No drive can come or go now. {problem}" if problem else ""


def _console(request: Request, vm: VM) -> dict[str, Any] | None:
    """The end of the console for the first view of the page; fragments do without."""
    if request.htmx:
        return None
    end = services.read_console(vm)
    return {"text": plain_text(end.text), "next": end.next_offset}


class History:
    """The newest moves of a VM, newest first, and whether there are more; read when shown."""

    def __init__(self, vm: VM) -> None:
        self._rows = Transition.objects.filter(vm=vm).order_by("-number")

    @property
    def moves(self) -> list[Transition]:
        return list(self._rows[:HISTORY_SHOWN])

    @property
    def last_trouble(self) -> Transition | None:
        """The move that brought the VM where it is, if that is ``crashed`` or ``failed``."""
        last = self._rows.first()
        bad = last is not None and last.to_state in (State.CRASHED, State.FAILED)
        return last if bad else None

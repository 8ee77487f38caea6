"""The list of VMs and the page of one."""

from __future__ import annotations

from functools import cached_property, partial

from django.db.models import QuerySet
from django.http import HttpResponse
from django.views.decorators.http import require_safe

from nexus_site.core.htmx import Request, page, render_page
from nexus_site.core.ids import resolve
from nexus_site.core.listing import Column, Listing
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operations
from vms import queries, services
from vms.choice import expectation
from vms.lineage import lineage
from vms.models import VM, Transition
from vms.services.metrics import usage_of, with_usage
from vms.states import State
from vms.views.frame import FRAME_FRAGMENTS, console_end, frame, with_launch
from vms.waterfall import waterfall

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
    *FRAME_FRAGMENTS,
    "vms/_now.html",
    "vms/_usage.html",
    "vms/_facts.html",
    "vms/_snapshots.html",
    "vms/_lineage.html",
    "vms/_history.html",
    "vms/_drives.html",
    "vms/_boots.html",
    "vms/_operations.html",
    "vms/_danger.html",
)


@require_safe
@page()
def vm_list(request: Request) -> HttpResponse:
    """VMs, and above them those that are being set up."""
    rows = with_usage(with_launch(queries.vm_list().shown()))
    listing = Listing(request, rows, columns=COLUMNS, sort="-created", states=State.values)
    context = {"area": "vms", "listing": listing, "setting_up": _setting_up(listing)}
    return render_page(request, "vms/list.html", context, fragments=LIST_FRAGMENTS)


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """Everything about one VM."""
    context = frame(ref, "vms:detail")
    vm = context["vm"]
    boots = list(vm.boots.all())
    context |= {
        "usage": partial(usage_of, vm),
        "boot": boots[0] if boots else None,
        "boots": boots[:8],
        "bars": partial(waterfall, vm, boots[:8]),
        "lines_of_family": partial(lineage, vm),
        "history": History(vm),
        "operations": _operations_of(vm)[:8],
        "next_start": expectation(vm.hypervisor),
        "console_page": console_end(request, vm),
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


def _operations_of(vm: VM) -> QuerySet[Operation]:
    return Operation.objects.filter(subject_kind="vm", subject_id=vm.pk, parent=None)


def _why_no_plug(vm: VM) -> str:
    """Why no drive can come or go now; empty when one can."""
    problem = services.hotplug_problem(vm)
    return f"No drive can come or go now. {problem}" if problem else ""


class History:
    """The newest moves of a VM, newest first; read when shown, and once."""

    def __init__(self, vm: VM) -> None:
        self._rows = Transition.objects.filter(vm=vm).order_by("-number")

    @cached_property
    def moves(self) -> list[Transition]:
        return list(self._rows[:HISTORY_SHOWN])

    @property
    def last_trouble(self) -> Transition | None:
        """The move that brought the VM where it is, if that is ``crashed`` or ``failed``, or
        suspended still, since it could not be resumed."""
        if not self.moves:
            return None
        last = self.moves[0]
        again = (last.from_state, last.to_state) == (State.STARTING, State.SUSPENDED)
        return last if again or last.to_state in (State.CRASHED, State.FAILED) else None

    @property
    def suspension(self) -> Transition | None:
        """How it was suspended last, as far as that is shown."""
        ways = (State.READY, State.PAUSED)
        found = (m for m in self.moves if m.to_state == State.SUSPENDED and m.from_state in ways)
        return next(found, None)

"""What all pages of one VM have in common: its head, its tabs and its dialogs."""

from __future__ import annotations

from typing import Any

from django.db.models import Count, F, OuterRef, QuerySet, Subquery
from django.urls import reverse

from drives.models import Drive, Snapshot
from drives.trees import tree
from nexus_site.core.htmx import Request
from nexus_site.core.ids import resolve
from nexus_site.core.operations import open_operations
from nexus_site.core.terminal import plain_text
from vms import queries
from vms.console import read_console
from vms.forms import RenameForm
from vms.models import VM, Boot, VMSnapshot
from vms.provisioning_records import phase_of
from vms.states import WITH_VMM, State

FRAME_FRAGMENTS = ("vms/_header.html", "vms/_dialogs.html")
#: The pages: the name of the URL, and what the tab says.
TABS = (
    ("vms:detail", "Overview"),
    ("vms:terminal", "Terminal"),
    ("vms:files", "Files"),
    ("vms:metrics", "Metrics"),
    ("vms:provisioning", "Provisioning"),
)


def frame(ref: str, current: str) -> dict[str, Any]:
    """The context of the page ``current`` of the VM called ``ref``; raises ``NotFound``."""
    rows = with_launch(queries.vm_detail())
    vm = resolve(rows.annotate(provisioning_problem=F("provisioning__problem")), ref)
    attachments = vm.attachments.all()
    drives = [attachment.drive for attachment in attachments]
    return {
        "area": "vms",
        "vm": vm,
        "tabs": _tabs(vm, current),
        "phase": phase_of(vm) if vm.state == State.RUNNING else "",
        "running": open_operations(vm),
        "has_vmm": vm.state in WITH_VMM,
        "has_root": any(attachment.is_root for attachment in attachments),
        "rename_form": RenameForm(initial={"name": vm.name}),
        "free_drives": Drive.objects.filter(attachment=None, state=Drive.State.READY),
        "going": [drive for drive in drives if drive.delete_with_vm],
        "staying": [drive for drive in drives if not drive.delete_with_vm],
        "lines": tree(_snapshots(vm), vm.head_id),
        "drive_snapshots": _snapshots_going(vm),
    }


def with_launch(rows: QuerySet[VM]) -> QuerySet[VM]:
    """``rows`` with ``launched_at``: when the VMM that runs now was launched, or None."""
    running = Boot.objects.filter(vm=OuterRef("pk"), ended_at=None).order_by("-number")
    return rows.annotate(launched_at=Subquery(running.values("launched_at")[:1]))


def console_end(request: Request, vm: VM) -> dict[str, Any] | None:
    """The end of the console for the first view of a page; fragments do without."""
    if request.htmx:
        return None
    end = read_console(vm)
    return {"text": plain_text(end.text), "next": end.next_offset}


def _tabs(vm: VM, current: str) -> list[dict[str, Any]]:
    return [
        {"label": label, "url": reverse(name, args=[vm.ref]), "current": name == current}
        for name, label in TABS
    ]


def _snapshots(vm: VM) -> QuerySet[VMSnapshot]:
    return vm.snapshots.annotate(part_count=Count("parts")).order_by("created_at")


def _snapshots_going(vm: VM) -> QuerySet[Snapshot]:
    """The snapshots of drives that go with the VM, without those that are parts of its own."""
    going = Snapshot.objects.filter(drive__attachment__vm=vm, drive__delete_with_vm=True)
    return going.filter(part=None).select_related("drive").order_by("created_at")

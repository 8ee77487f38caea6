"""Snapshots of VMs, going back to one, and clones; also back to a snapshot of a single drive."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.db.models import QuerySet
from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from drives.forms import NewNameForm, RenameForm
from drives.models import Snapshot
from nexus_site.core.dialogs import Dialog
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.operations import open_operations
from vms import services
from vms.forms import CloneForm, RollbackForm
from vms.models import VM, VMSnapshot
from vms.states import AT_REST

_LOST = "What was written since is lost; take a snapshot first if you may want it again."


def vm_snapshots() -> QuerySet[VMSnapshot]:
    return VMSnapshot.objects.select_related("vm", "parent")


@require_safe
@page()
def detail(request: Request, ref: str) -> HttpResponse:
    """One snapshot of a VM: its parts, what came after it, what was made of it."""
    snapshot = resolve(vm_snapshots(), ref)
    context = {
        "area": "vms",
        "snapshot": snapshot,
        "vm": snapshot.vm,
        "parts": snapshot.parts.select_related("snapshot__drive"),
        "children": snapshot.children.order_by("created_at"),
        "clones": snapshot.clones.order_by("name"),
        "running": open_operations(snapshot.vm),
    }
    fragments = ("vms/_snapshot.html",)
    return render_page(request, "vms/snapshot.html", context, fragments=fragments)


@require_http_methods(["GET", "POST"])
@page("operate")
def take(request: Request, ref: str) -> HttpResponse:
    """A snapshot of all drives of a VM."""
    vm = resolve(VM.objects.shown(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.snapshot_vm(vm, name=data["name"])
        return toast(request, operation.title, operation=operation)

    text = "Keeps all its drives as they are at one instant."
    if vm.state not in AT_REST:
        text += " It stands still for that moment; its agent writes everything out first."
    dialog = Dialog(f"Take a snapshot of {vm.name}", "Take snapshot", text)
    return dialog.answer(request, submit, NewNameForm)


@require_http_methods(["GET", "POST"])
@page("operate")
def rollback(request: Request, ref: str) -> HttpResponse:
    """All drives of a VM as they were; one that runs is stopped for it and started again."""
    snapshot = resolve(vm_snapshots(), ref)
    vm, stop = snapshot.vm, snapshot.vm.state not in AT_REST

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.rollback_vm(vm, snapshot, stop=data["stop"])
        return toast(request, operation.title, operation=operation)

    dialog = Dialog(
        f"Roll {vm.name} back to {snapshot.name}?",
        "Stop, roll back and start" if stop else "Roll back",
        f"{_runs(vm, stop)}{_LOST}",
        danger=True,
        plan=lambda: services.rollback_vm(vm, snapshot, stop=stop),
    )
    return dialog.answer(request, submit, RollbackForm, {"stop": stop})


@require_http_methods(["GET", "POST"])
@page("operate")
def rollback_drive(request: Request, ref: str) -> HttpResponse:
    """The same for one drive, whose snapshot is named."""
    snapshot = resolve(Snapshot.objects.select_related("drive__attachment__vm"), ref)
    drive = snapshot.drive
    vm = drive.attachment.vm if hasattr(drive, "attachment") else None
    stop = vm is not None and vm.state not in AT_REST

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.rollback_drive(drive, snapshot, stop=data["stop"])
        return toast(request, operation.title, operation=operation)

    dialog = Dialog(
        f"Roll {drive.name} back to {snapshot.name}?",
        "Stop, roll back and start" if stop else "Roll back",
        f"{_runs(vm, stop)}{_LOST}",
        danger=True,
        plan=lambda: services.rollback_drive(drive, snapshot, stop=stop),
    )
    return dialog.answer(request, submit, RollbackForm, {"stop": stop})


def _runs(vm: VM | None, stop: bool) -> str:
    return f"{vm.name} runs: it is stopped for this and started again. " if vm and stop else ""


@require_http_methods(["GET", "POST"])
@page("operate")
def rename(request: Request, ref: str) -> HttpResponse:
    snapshot = resolve(vm_snapshots(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        renamed = services.rename_vm_snapshot(snapshot, data["name"])
        return toast(request, f"It is called {renamed.name} now.")

    dialog = Dialog(f"Rename {snapshot.name}", "Rename")
    return dialog.answer(request, submit, RenameForm, {"name": snapshot.name})


@require_http_methods(["GET", "POST"])
@page("operate")
def delete(request: Request, ref: str) -> HttpResponse:
    snapshot = resolve(vm_snapshots(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.delete_vm_snapshot(snapshot)
        url = reverse("vms:detail", args=[snapshot.vm.ref])
        return go_to(request, url, f"{operation.title}: under way.")

    dialog = Dialog(
        f"Delete the snapshot {snapshot.name}?",
        "Delete",
        f"What {snapshot.vm.name} was like then is lost. The VM itself, other snapshots and "
        "clones of this one stay.",
        danger=True,
        plan=lambda: services.delete_vm_snapshot(snapshot),
    )
    return dialog.answer(request, submit)


@require_http_methods(["GET", "POST"])
@page("operate")
def clone(request: Request, ref: str) -> HttpResponse:
    """Another VM like this one: as it is now, or as in one of its snapshots (``?snapshot=``)."""
    vm = resolve(VM.objects.shown(), ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.clone_vm(vm, **data)
        return go_to(request, reverse("operation", args=[operation.ref]))

    text = "A VM of its own: drives, name, network address and identity are new."
    dialog = Dialog(f"Clone {vm.name}", "Clone", text)
    initial = {
        "snapshot": request.GET.get("snapshot"),
        "vcpu_count": vm.vcpu_count,
        "mem_size_mib": vm.mem_size_mib,
        "hypervisor": vm.hypervisor,
    }
    return dialog.answer(request, submit, partial(CloneForm, vm=vm), initial)

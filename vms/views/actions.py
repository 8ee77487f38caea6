"""The buttons of a VM: each calls one service and answers with a note."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from drives.models import Drive
from nexus_site.core.dialogs import Dialog
from nexus_site.core.errors import Invalid
from nexus_site.core.htmx import Request, go_to, page, toast
from nexus_site.core.ids import resolve
from vms import services
from vms.forms import RenameForm
from vms.models import VM
from vms.shape import shape_in, shape_of
from vms.shape_forms import ChangeForm
from vms.states import AT_REST


def _vm(ref: str) -> VM:
    return resolve(VM.objects.shown(), ref)


@require_POST
@page()
def start(request: Request, ref: str) -> HttpResponse:
    operation = services.start_vm(_vm(ref))
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def stop(request: Request, ref: str) -> HttpResponse:
    """Stop, or kill with ``force``."""
    operation = services.stop_vm(_vm(ref), force="force" in request.POST)
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def restart(request: Request, ref: str) -> HttpResponse:
    operation = services.restart_vm(_vm(ref))
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def upgrade_agent(request: Request, ref: str) -> HttpResponse:
    operation = services.upgrade_agent(_vm(ref))
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def rename(request: Request, ref: str) -> HttpResponse:
    form = RenameForm(request.POST)
    vm = services.rename_vm(_vm(ref), form.data.get("name", "").strip())
    return toast(request, f"It is called {vm.name} now. Its guest follows at the next start.")


@require_http_methods(["GET", "POST"])
@page("operate")
def change(request: Request, ref: str) -> HttpResponse:
    """What the VM is like: its size, what it is to run on, its limits, its policies."""
    vm = _vm(ref)
    runs = vm.state not in AT_REST

    def submit(data: dict[str, Any]) -> HttpResponse:
        before = vm.hypervisor
        services.update_vm(vm, kernel=data["kernel"], **shape_in(data))
        later = runs and vm.hypervisor != before
        when = "Its hypervisor is another one at the next start." if later else ""
        return toast(request, f"{vm.name} is changed. {when}".strip())

    dialog = Dialog(
        f"Change {vm.name}",
        "Change",
        "It runs: its hypervisor takes effect at its next start, and its size and limits can be "
        "changed when it is stopped."
        if runs
        else "",
    )
    initial = {**shape_of(vm), "kernel": vm.kernel.name if vm.kernel else ""}
    return dialog.answer(request, submit, partial(ChangeForm, vm=vm), initial)


@require_POST
@page()
def delete(request: Request, ref: str) -> HttpResponse:
    """Delete for good, once the name was typed; a running VM is forced off first.

    The dialog has named the drives and snapshots that go (``with_snapshots``).
    """
    vm = _vm(ref)
    if request.POST.get("confirm", "") != vm.name:
        raise Invalid(f"Type the name of the VM, {vm.name}, to delete it.", code="confirmation")
    operation = services.delete_vm(
        vm,
        force="force" in request.POST,
        keep_drives="keep_drives" in request.POST,
        with_snapshots="with_snapshots" in request.POST,
    )
    return go_to(request, reverse("vms:list"), f"{operation.title}: under way.")


@require_POST
@page()
def attach_drive(request: Request, ref: str) -> HttpResponse:
    """Attach a drive to a VM; as its root unless told otherwise."""
    vm, drive = _vm(ref), resolve(Drive.objects.all(), request.POST.get("drive", ""))
    operation = services.attach_drive(
        vm,
        drive,
        is_root=request.POST.get("role", "root") == "root",
        read_only="read_only" in request.POST,
        delete_with_vm="delete_with_vm" in request.POST,
    )
    if operation:
        return toast(request, operation.title, operation=operation)
    return toast(request, f"{drive.name} is attached to {vm.name}.")


@require_POST
@page()
def detach_drive(request: Request, drive_ref: str) -> HttpResponse:
    drive = resolve(Drive.objects.all(), drive_ref)
    operation = services.detach_drive(drive)
    if operation:
        return toast(request, operation.title, operation=operation)
    return toast(request, f"{drive.name} is detached.")

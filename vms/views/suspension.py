"""The buttons of VMs that stand still and go on: paused, suspended, checkpoints and forks."""

from __future__ import annotations

from functools import partial
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from drives.forms import NewNameForm
from nexus_site.core.dialogs import Dialog
from nexus_site.core.htmx import Request, go_to, page, toast
from nexus_site.core.ids import resolve
from nexus_site.core.models import Operation
from vms import services
from vms.models import VM, VMSnapshot
from vms.states import State
from vms.suspension_forms import ForkForm, checkpoints_of
from vms.verbs import why_not

_LOST = "What its programs had not written to a drive is lost."


def _vm(ref: str) -> VM:
    return resolve(VM.objects.shown(), ref)


def _carry_out(request: Request, operation: Operation) -> HttpResponse:
    return toast(request, operation.title, operation=operation)


@require_POST
@page()
def pause(request: Request, ref: str) -> HttpResponse:
    return _carry_out(request, services.pause_vm(_vm(ref)))


@require_POST
@page()
def unpause(request: Request, ref: str) -> HttpResponse:
    return _carry_out(request, services.unpause_vm(_vm(ref)))


@require_POST
@page()
def suspend(request: Request, ref: str) -> HttpResponse:
    return _carry_out(request, services.suspend_vm(_vm(ref)))


@require_POST
@page()
def resume(request: Request, ref: str) -> HttpResponse:
    return _carry_out(request, services.resume_vm(_vm(ref)))


@require_http_methods(["GET", "POST"])
@page("operate")
def start_cold(request: Request, ref: str) -> HttpResponse:
    """A start that boots the guest, whatever memory it could go on from."""
    vm = _vm(ref)
    gives_up = bool(vm.saved_memory or vm.resume_from_id)
    text = "Its guest boots, even if it could go on from a memory that was saved. "
    return _asked(
        request,
        Dialog(
            f"Start {vm.name} cold?",
            "Start cold",
            text + (f"It gives that memory up. {_LOST}" if gives_up else ""),
            danger=gives_up,
            plan=partial(services.start_vm, vm, cold=True),
        ),
    )


@require_http_methods(["GET", "POST"])
@page("operate")
def give_up(request: Request, ref: str) -> HttpResponse:
    """The stop of a suspended VM, which is not asked for by chance."""
    vm = _vm(ref)
    return _asked(
        request,
        Dialog(
            f"Give the memory of {vm.name} up?",
            "Give it up",
            f"It is stopped then, and boots when it is started. {_LOST}",
            danger=True,
            plan=partial(services.stop_vm, vm),
        ),
    )


def _asked(request: Request, dialog: Dialog) -> HttpResponse:
    """A dialog that asks nothing but whether to do what it shows."""

    def submit(data: dict[str, Any]) -> HttpResponse:
        assert dialog.plan is not None
        return _carry_out(request, dialog.plan())

    return dialog.answer(request, submit)


@require_http_methods(["GET", "POST"])
@page("operate")
def checkpoint(request: Request, ref: str) -> HttpResponse:
    """A snapshot with the memory."""
    vm = _vm(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        return _carry_out(request, services.checkpoint_vm(vm, name=data["name"]))

    text = "Keeps its memory and all its drives as they are at one instant: VMs can go on from it."
    if vm.state == State.READY:
        text += " It stands still while they are saved, and goes on by itself."
    dialog = Dialog(
        f"Take a checkpoint of {vm.name}",
        "Take checkpoint",
        text,
        plan=lambda: services.checkpoint_vm(vm),
    )
    return dialog.answer(request, submit, NewNameForm)


@require_http_methods(["GET", "POST"])
@page("operate")
def fork(request: Request, ref: str) -> HttpResponse:
    """VMs that go on from where this one is, or was at a checkpoint (``?snapshot=``)."""
    vm = _vm(ref)
    now = not why_not(vm, "fork")
    form = partial(ForkForm, vm=vm, now=now)
    initial: dict[str, Any] = {"snapshot": _chosen(vm, request, now)}
    wishes = initial
    if "count" in request.GET:  # the dialog that is shown asks for the plan of other wishes
        initial |= request.GET.dict() | {"start": "start" in request.GET}
        again = form(request.GET)
        wishes = again.cleaned_data if again.is_valid() else {}

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = services.fork_vm(vm, **data)
        return go_to(request, reverse("operation", args=[operation.ref]))

    dialog = Dialog(
        f"Fork {vm.name}",
        "Fork",
        "Each goes on in the middle of what it was doing, with copies of its drives and an "
        "identity of its own.",
        plan=lambda: services.fork_vm(vm, **wishes),
    )
    return dialog.answer(request, submit, form, initial)


def _chosen(vm: VM, request: Request, now: bool) -> VMSnapshot | None:
    """The checkpoint that is offered first, or None for how the VM is now."""
    if "snapshot" in request.GET:
        return resolve(vm.snapshots.all(), request.GET["snapshot"])
    return None if now else checkpoints_of(vm).first()

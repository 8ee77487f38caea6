"""The page of pools: how full they are, and the VMs that wait in them."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_safe

from nexus_site.core.dialogs import Dialog
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import encode, resolve
from vms import queries
from vms.models import Pool
from vms.pool_forms import CreatePoolForm, ResizePoolForm, TakeForm
from vms.services import pools
from vms.shape import shape_in
from vms.states import State

FRAGMENTS = ("vms/_pools.html",)


@require_safe
@page()
def pool_list(request: Request) -> HttpResponse:
    rows = [
        {"pool": pool, "vms": pool.waiting, "ready": _ready(pool)}  # type: ignore[attr-defined]
        for pool in queries.pools()
    ]
    context = {"area": "pools", "rows": rows}
    return render_page(request, "vms/pools.html", context, fragments=FRAGMENTS)


@require_http_methods(["GET", "POST"])
@page("operate")
def create(request: Request) -> HttpResponse:
    def submit(data: dict[str, Any]) -> HttpResponse:
        pool = pools.create_pool(
            data["name"],
            image=data["image"],
            template=data["template"],
            size=data["size"],
            shape=shape_in(data),
        )
        return toast(request, f"The pool {pool.name} is there, and is being filled.")

    text = "So many VMs are ready before anybody asks. They take memory while they wait."
    dialog = Dialog("New pool", "Create", text)
    return dialog.answer(request, submit, CreatePoolForm, {"image": request.GET.get("image")})


@require_http_methods(["GET", "POST"])
@page("operate")
def take(request: Request, ref: str) -> HttpResponse:
    """A VM out of the pool; ends at its page."""
    pool = _pool(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = pools.take_vm(pool, **data)
        if operation.kind == pools.TAKE and operation.subject_id is not None:
            url = reverse("vms:detail", args=[encode(operation.subject_id)])
            return go_to(request, url, f"It comes from the pool {pool.name}.")
        return toast(request, operation.title, operation=operation)

    return Dialog(f"Take a VM from {pool.name}", "Take").answer(request, submit, TakeForm)


@require_http_methods(["GET", "POST"])
@page("operate")
def resize(request: Request, ref: str) -> HttpResponse:
    pool = _pool(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        pools.update_pool(pool, size=data["size"])
        return toast(request, f"{data['size']} VMs are to wait in {pool.name}.")

    text = "It tries again at once what it has failed to make." if pool.problem else ""
    dialog = Dialog(f"Resize {pool.name}", "Resize", text)
    return dialog.answer(request, submit, ResizePoolForm, {"size": pool.size})


@require_http_methods(["GET", "POST"])
@page("operate")
def delete(request: Request, ref: str) -> HttpResponse:
    pool = _pool(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        operation = pools.delete_pool(pool)
        return toast(request, operation.title, operation=operation)

    dialog = Dialog(
        f"Delete the pool {pool.name}?",
        "Delete",
        "The VMs that wait in it go. Those that were taken stay.",
        danger=True,
        plan=lambda: pools.delete_pool(_pool(ref)),
    )
    return dialog.answer(request, submit)


def _pool(ref: str) -> Pool:
    return resolve(Pool.objects.select_related("image"), ref)


def _ready(pool: Pool) -> int:
    return sum(vm.state == State.READY for vm in pool.waiting)  # type: ignore[attr-defined]

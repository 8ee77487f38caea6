"""What VMs are given when they start, over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from nexus_site.core.http import carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.schemas import BINARY_BODY, ChangeQuery, Plan
from vms import services
from vms.models import VM, Provisioning
from vms.provisioning_rules import MAX_FILE
from vms.provisioning_schemas import (
    ProvisioningIn,
    ProvisioningOut,
    ProvisioningPatch,
    ScriptLogOut,
    UploadQuery,
    file_of,
)

router = Router()

CHANGED = {200: ProvisioningOut | Plan}


@router.get("/vms/{ref}/provisioning", response=ProvisioningOut)
def get_provisioning(request: HttpRequest, ref: str) -> Provisioning:
    """What the VM's guest is given, without secret values, and how that went last."""
    return services.provisioning_of(_vm(ref))


@router.put("/vms/{ref}/provisioning", response=CHANGED)
def replace_provisioning(
    request: HttpRequest, ref: str, data: ProvisioningIn, query: Query[ChangeQuery]
) -> HttpResponse:
    """Give the guest just this, from its next start on."""
    vm, wanted = _vm(ref), data.wanted()
    return carry_out(
        request,
        query,
        lambda: services.replace_provisioning(vm, **wanted),
        shown_as=ProvisioningOut,
    )


@router.patch("/vms/{ref}/provisioning", response=CHANGED)
def change_provisioning(
    request: HttpRequest, ref: str, data: ProvisioningPatch, query: Query[ChangeQuery]
) -> HttpResponse:
    """Change some of what the guest is given, from its next start on."""
    vm, changes = _vm(ref), data.changes()
    return carry_out(
        request,
        query,
        lambda: services.change_provisioning(vm, **changes),
        shown_as=ProvisioningOut,
    )


@router.delete("/vms/{ref}/provisioning", response={204: None, 200: Plan})
def clear_provisioning(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Give the guest nothing any more; files and all else that it was given stay."""
    vm = _vm(ref)
    return carry_out(request, query, lambda: services.clear_provisioning(vm))


@router.put("/vms/{ref}/provisioning/files", response=CHANGED, openapi_extra=BINARY_BODY)
def put_provisioning_file(
    request: HttpRequest, ref: str, file: Query[UploadQuery], query: Query[ChangeQuery]
) -> HttpResponse:
    """Give the guest the file in the request's body, at most 1 MiB, in the place of the one with
    this path."""
    vm, content = _vm(ref), request.read(MAX_FILE + 1)
    given = file_of(file.path, content, file.mode, file.user, secret=file.secret)
    return carry_out(
        request,
        query,
        lambda: services.change_provisioning(vm, files=[given]),
        shown_as=ProvisioningOut,
    )


@router.delete("/vms/{ref}/provisioning/files", response=CHANGED)
def remove_provisioning_file(
    request: HttpRequest, ref: str, query: Query[ChangeQuery], path: str = ""
) -> HttpResponse:
    """Give the guest this file no more; it stays where it was written already."""
    vm = _vm(ref)
    return carry_out(
        request, query, lambda: services.remove_file(vm, path), shown_as=ProvisioningOut
    )


@router.post("/vms/{ref}/provisioning/run-again", response=CHANGED)
def run_script_again(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Have the first-boot script run once more, at the next start."""
    vm = _vm(ref)
    return carry_out(
        request, query, lambda: services.run_script_again(vm), shown_as=ProvisioningOut
    )


@router.get("/vms/{ref}/provisioning/log", response=ScriptLogOut)
def get_provisioning_log(request: HttpRequest, ref: str) -> Provisioning:
    """What the first-boot script wrote: its last 64 KiB, also while it runs."""
    return services.provisioning_of(_vm(ref))


def _vm(ref: str) -> VM:
    return resolve(VM.objects.shown(), ref)

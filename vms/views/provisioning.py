"""What a VM is given when it starts: shown, changed, and how it went."""

from __future__ import annotations

from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.debug import sensitive_post_parameters
from django.views.decorators.http import require_http_methods, require_POST

from nexus_site.core.dialogs import Dialog
from nexus_site.core.errors import NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page, toast
from nexus_site.core.ids import resolve
from vms import services
from vms.models import VM, ProvisionedFile
from vms.provisioning_forms import GivenFileForm, ProvisioningForm, SecretForm
from vms.provisioning_records import WORKING
from vms.provisioning_schemas import script_done
from vms.states import ALIVE
from vms.views.frame import FRAME_FRAGMENTS, frame

FRAGMENTS = (
    *FRAME_FRAGMENTS,
    "vms/_provisioning_state.html",
    "vms/_provisioning_secrets.html",
    "vms/_provisioning_files.html",
)
LATER = "It takes effect at the next start."


@require_http_methods(["GET", "HEAD", "POST"])
@page()
def provisioning(request: Request, ref: str) -> HttpResponse:
    """The page, and what its form says."""
    context = frame(ref, "vms:provisioning")
    vm: VM = context["vm"]
    row = services.provisioning_of(vm)
    form = ProvisioningForm.of(row, request.POST or None)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_provisioning(vm, **form.changes(row))
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, _url(vm), f"Saved. {LATER}")
    alive = vm.state in ALIVE
    context |= {
        "row": row,
        "form": form,
        "files": row.files.defer("content"),
        "working": alive and row.phase in WORKING,
        "script_done": script_done(vm, row),
        "may_change": request.caller.may("operate"),
    }
    status = 422 if form.is_bound else 200
    return render_page(
        request, "vms/provisioning.html", context, fragments=FRAGMENTS, status=status
    )


@sensitive_post_parameters("value")
@require_http_methods(["GET", "POST"])
@page("operate")
def add_secret(request: Request, ref: str) -> HttpResponse:
    """A dialog for a secret variable."""
    vm = _vm(ref)

    def submit(data: dict[str, Any]) -> HttpResponse:
        name = data["name"].strip()
        value = data["value"].replace("\r\n", "\n")
        services.change_provisioning(vm, secret_env={name: value})
        return toast(request, f"{name} is set. {LATER}")

    dialog = Dialog("Add a secret variable", "Save", "One with this name is replaced.")
    return dialog.answer(request, submit, SecretForm)


@require_POST
@page()
def remove_secret(request: Request, ref: str, name: str) -> HttpResponse:
    services.change_provisioning(_vm(ref), secret_env={name: None})
    return toast(request, f"{name} is removed. {LATER}")


@sensitive_post_parameters()
@require_http_methods(["GET", "POST"])
@page("operate")
def add_file(request: Request, ref: str) -> HttpResponse:
    """A form for a file."""
    context = frame(ref, "vms:provisioning")
    vm: VM = context["vm"]
    form = GivenFileForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        try:
            services.change_provisioning(vm, files=[form.given()])
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, _url(vm), f"{form.cleaned_data['path']} is added. {LATER}")
    status = 422 if form.is_bound else 200
    return render_page(
        request,
        "vms/provisioning_file.html",
        context | {"form": form},
        fragments=("vms/_provisioning_file_form.html",),
        status=status,
    )


@require_POST
@page()
def remove_file(request: Request, ref: str, file_ref: str) -> HttpResponse:
    vm = _vm(ref)
    file = _file(vm, file_ref)
    services.remove_file(vm, file.path)
    return toast(request, f"{file.path} is removed. {LATER}")


@require_POST
@page()
def run_again(request: Request, ref: str) -> HttpResponse:
    services.run_script_again(_vm(ref))
    return toast(request, "The script runs at the next start.")


def _file(vm: VM, ref: str) -> ProvisionedFile:
    """A file that the VM is given. Raises ``NotFound``."""
    return resolve(ProvisionedFile.objects.filter(provisioning__vm=vm).defer("content"), ref)


def _vm(ref: str) -> VM:
    return resolve(VM.objects.shown(), ref)


def _url(vm: VM) -> str:
    return reverse("vms:provisioning", args=[vm.ref])

"""The form for a new VM, and the preview of what it would do."""

from __future__ import annotations

import json
import shlex
from typing import Any

from django.http import HttpResponse
from django.urls import reverse
from django.views.decorators.http import require_http_methods, require_POST

from nexus_site.core.errors import Invalid, NexusError
from nexus_site.core.htmx import Request, go_to, page, render_page
from nexus_site.core.operations import rehearse
from vms import services
from vms.forms import FromImageForm, FromRootfsForm

FORM = "vms/_new_form.html"


@require_http_methods(["GET", "POST"])
@page("operate")
def new(request: Request) -> HttpResponse:
    """A new VM from a distribution; goes on to the operation that makes it."""
    form = FromRootfsForm(request.POST or None, host=services.host_capacity())
    if request.method == "POST" and form.is_valid():
        try:
            operation = services.create_from_rootfs(**form.arguments())
        except NexusError as error:
            form.refuse(error)
        else:
            return go_to(request, reverse("operation", args=[operation.ref]))
    status = 422 if form.is_bound else 200
    context = {"area": "new", "form": form}
    return render_page(request, "vms/new.html", context, fragments=(FORM,), status=status)


@require_POST
@page("operate")
def preview(request: Request) -> HttpResponse:
    """What the form would do as it is filled in, and the same by command and API."""
    form = FromRootfsForm(request.POST, host=services.host_capacity())
    context: dict[str, Any] = {"form": form}
    if form.is_valid():
        arguments = form.arguments()
        context |= {"command": command_for(arguments), "request_body": _body(arguments)}
        try:
            context["plan"] = rehearse(lambda: services.create_from_rootfs(**arguments))
        except NexusError as error:
            context["error"] = error
    return render_page(request, "vms/_plan.html", context)


def command_for(arguments: dict[str, Any]) -> str:
    """The ``nexusctl`` command that does the same."""
    words = ["nexusctl", "vm", "from-rootfs", arguments["distro"], arguments["version"]]
    if arguments["name"]:
        words += ["--name", arguments["name"]]
    words += ["--vcpus", str(arguments["vcpu_count"]), "--memory", str(arguments["mem_size_mib"])]
    return shlex.join(words)


def _body(arguments: dict[str, Any]) -> str:
    return json.dumps({key: value for key, value in arguments.items() if value})


@require_POST
@page()
def from_image(request: Request) -> HttpResponse:
    """A VM from an image that is here already; goes on to its page."""
    form = FromImageForm(request.POST)
    if not form.is_valid():
        raise Invalid("vCPUs and memory are whole numbers.", code="number")
    operation = services.create_vm(**form.cleaned_data, start=True)
    return go_to(request, reverse("vms:detail", args=[str(operation.subject_id)]))

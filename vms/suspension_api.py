"""VMs that stand still, over HTTP: paused, suspended, kept with their memory, and forked."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.schemas import ChangeQuery, Input
from vms import services
from vms.models import VM, VMSnapshot
from vms.snapshots_schemas import SnapshotVM

router = Router(tags=["VMs"])


class ResumeVM(Input):
    cold: bool = Field(default=False, description="Let its guest boot; its memory is given up.")


class ForkVM(Input):
    """VMs that go on from where another one is, or was."""

    count: int = Field(default=1, ge=1, le=services.MAX_FORKS)
    name: str = Field(
        default="",
        max_length=63,
        description="A DNS label: of the fork, or with a number after it of each of several. Left "
        "out, the VM's name and numbers.",
    )
    snapshot: str = Field(
        default="", description="Name or ID of a checkpoint of the VM; left out, one of now."
    )
    start: bool = Field(default=True, description="Left to later, a fork goes on once started.")


@router.post("/vms/{ref}/pause", response=STARTED)
def pause_vm(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Stop the CPUs of a VM that is ready, until it is unpaused."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.pause_vm(vm))


@router.post("/vms/{ref}/unpause", response=STARTED)
def unpause_vm(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Let a paused VM go on."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.unpause_vm(vm))


@router.post("/vms/{ref}/suspend", response=STARTED)
def suspend_vm(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Save the memory of a VM to the disk and end its VMM; nothing in it is lost."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.suspend_vm(vm))


@router.post("/vms/{ref}/resume", response=STARTED)
def resume_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: ResumeVM = ResumeVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Let a suspended VM go on from its memory; the operation ends when its agent answers."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.resume_vm(vm, cold=data.cold))


@router.post("/vms/{ref}/checkpoint", response=STARTED, tags=["snapshots"])
def checkpoint_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: SnapshotVM = SnapshotVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """A snapshot of a VM with its memory, which forks go on from; the VM goes on as well."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.checkpoint_vm(vm, name=data.name))


@router.post("/vms/{ref}/fork", response=STARTED)
def fork_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: ForkVM = ForkVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """New VMs that go on from where this one is, or was at a checkpoint, each with drives and an
    identity of its own. ``result.forks`` tells how each came out; the operation succeeds if any
    did."""
    vm = resolve(VM.objects.shown(), ref)
    snapshots = VMSnapshot.objects.select_related("vm")
    snapshot = resolve(snapshots, data.snapshot) if data.snapshot else None
    wishes = data.model_dump(exclude={"snapshot"})
    return carry_out(request, query, lambda: services.fork_vm(vm, snapshot=snapshot, **wishes))

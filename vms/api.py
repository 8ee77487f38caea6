"""VMs over HTTP."""

from __future__ import annotations

from typing import Annotated

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from drives.api import DRIVES
from drives.models import Drive
from drives.schemas import DriveOut
from images.models import Image
from nexus_site.core.http import STARTED, carry_out, poll
from nexus_site.core.ids import resolve
from nexus_site.core.models import Operation
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, OperationOut, Page, Plan, TextPage
from vms import queries, services
from vms.console import ConsolePage
from vms.exec_api import router as exec_router
from vms.files_api import router as files_router
from vms.metrics_api import router as metrics_router
from vms.models import VM
from vms.provisioning_api import router as provisioning_router
from vms.schemas import (
    AttachDrive,
    BalloonVM,
    BootOut,
    CreateVM,
    DeleteQuery,
    StartVM,
    StopVM,
    TransitionOut,
    UpdateVM,
    VMDetail,
    VMOut,
    VMState,
)
from vms.sessions_api import router as sessions_router
from vms.snapshots_api import router as snapshots_router
from vms.suspension_api import router as suspension_router
from vms.upgrades_api import router as upgrades_router

router = Router(tags=["VMs"])
router.add_router("", snapshots_router)
router.add_router("", suspension_router)
router.add_router("", upgrades_router)
router.add_router("", exec_router)
router.add_router("", provisioning_router)
router.add_router("", metrics_router)
router.add_router("", sessions_router)
router.add_router("", files_router)
drive_router = Router(tags=["drives"])

PLUGGED = {200: DriveOut | OperationOut | Plan, 202: OperationOut}


class VMQuery(PageQuery):
    state: VMState | None = None
    name: str = Field("", description="Only VMs whose name contains this.")
    image: str = Field("", description="Only VMs on this image (name or ID).")


@router.get("/vms", response=Page[VMOut])
def list_vms(request: HttpRequest, query: Query[VMQuery]) -> Slice:
    rows = queries.vm_list().shown()
    if query.state:
        rows = rows.filter(state=query.state)
    if query.name:
        rows = rows.filter(name__icontains=query.name)
    if query.image:
        image = resolve(Image.objects.all(), query.image)
        rows = rows.filter(attachments__is_root=True, attachments__drive__image=image)
    return paginate(rows, query, "-created_at", "name", "state", "state_since")


@router.post("/vms", response=STARTED)
def create_vm(request: HttpRequest, data: CreateVM, query: Query[ChangeQuery]) -> HttpResponse:
    """Make a VM from an image or around a drive; with ``start``, start it too."""
    wanted = data.provisioning.wanted() if data.provisioning else None
    values = data.model_dump(exclude={"provisioning"})
    return carry_out(request, query, lambda: services.create_vm(**values, provisioning=wanted))


@router.get("/vms/{ref}", response=VMDetail)
def get_vm(request: HttpRequest, ref: str) -> VM:
    return resolve(queries.vm_detail(), ref)


@router.patch("/vms/{ref}", response=VMDetail)
def update_vm(
    request: HttpRequest, ref: str, data: UpdateVM, query: Query[ChangeQuery]
) -> HttpResponse:
    """Rename a VM; change what it is like while it is at rest, and at any time its hypervisor
    and what is done when it ends or does not answer."""
    vm = resolve(VM.objects.shown(), ref)

    @transaction.atomic
    def change() -> VM:
        if data.name is not None and data.name != vm.name:
            services.rename_vm(vm, data.name)
        services.update_vm(vm, **data.model_dump(exclude={"name"}, exclude_none=True))
        return queries.vm_detail().get(pk=vm.pk)

    return carry_out(request, query, change, shown_as=VMDetail)


@router.delete("/vms/{ref}", response=STARTED)
def delete_vm(
    request: HttpRequest, ref: str, query: Query[ChangeQuery], options: Query[DeleteQuery]
) -> HttpResponse:
    """Delete a VM and, unless ``keep_drives``, the drives that go with it."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.delete_vm(vm, **options.model_dump()))


@router.post("/vms/{ref}/start", response=STARTED)
def start_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: StartVM = StartVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Start a VM at rest; the operation ends when its agent has said hello."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.start_vm(vm, cold=data.cold))


@router.post("/vms/{ref}/stop", response=STARTED)
def stop_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: StopVM = StopVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Shut a VM down: its agent first, then the power button, then kill."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.stop_vm(vm, force=data.force))


@router.post("/vms/{ref}/restart", response=STARTED)
def restart_vm(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.restart_vm(vm))


@router.post("/vms/{ref}/balloon", response=STARTED)
def balloon_vm(
    request: HttpRequest, ref: str, data: BalloonVM, query: Query[ChangeQuery]
) -> HttpResponse:
    """Have the guest of a running VM give memory back, as far as it can, or take it again."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.balloon_vm(vm, data.mem_size_mib))


@router.get("/vms/{ref}/history", response=Page[TransitionOut])
def list_history(request: HttpRequest, ref: str, query: Query[PageQuery]) -> Slice:
    """Every move of the VM's state, oldest first; crashes carry their post-mortem."""
    vm = resolve(VM.objects.all(), ref)
    return paginate(vm.history.all(), query, "number")


@router.get("/vms/{ref}/boots", response=Page[BootOut])
def list_boots(request: HttpRequest, ref: str, query: Query[PageQuery]) -> Slice:
    """Every start of the VM, newest first."""
    vm = resolve(VM.objects.all(), ref)
    return paginate(vm.boots.select_related("kernel"), query, "-number")


@router.get("/vms/{ref}/console", response=TextPage)
def get_console(
    request: HttpRequest,
    ref: str,
    offset: int = -65536,
    wait: Annotated[float, Query(ge=0, le=60)] = 0,
) -> ConsolePage:
    """A piece of the serial console from byte ``offset`` (negative: from the end).

    ``wait`` waits so many seconds for more when there is nothing beyond ``offset`` yet.
    """
    vm = resolve(VM.objects.all(), ref)
    return poll(lambda: services.read_console(vm, offset), lambda page: bool(page.text), wait)


@drive_router.post("/drives/{ref}/attach", response=PLUGGED)
def attach_drive(
    request: HttpRequest, ref: str, data: AttachDrive, query: Query[ChangeQuery]
) -> HttpResponse:
    """Put a drive into a VM, by default as its root.

    One at rest has it at once (200); into one that runs an operation plugs it (202).
    """
    drive = resolve(Drive.objects.all(), ref)
    vm = resolve(VM.objects.shown(), data.vm)

    def change() -> Drive | Operation:
        operation = services.attach_drive(vm, drive, **data.model_dump(exclude={"vm"}))
        return operation or DRIVES.get(pk=drive.pk)

    return carry_out(request, query, change, shown_as=DriveOut)


@drive_router.post("/drives/{ref}/detach", response=PLUGGED)
def detach_drive(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Take a drive out of its VM.

    Out of one at rest it is at once (200); out of one that runs an operation unplugs it (202),
    which fails and changes nothing while the guest uses the drive.
    """
    drive = resolve(Drive.objects.all(), ref)

    def change() -> Drive | Operation:
        return services.detach_drive(drive) or DRIVES.get(pk=drive.pk)

    return carry_out(request, query, change, shown_as=DriveOut)

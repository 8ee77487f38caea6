"""Snapshots of VMs over HTTP: made, gone back to, cloned from."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from drives.models import Drive, Snapshot
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page
from vms import queries, services
from vms.models import VM, VMSnapshot
from vms.snapshots_schemas import (
    CloneVM,
    RollBackDrive,
    RollBackVM,
    SnapshotVM,
    UpdateVMSnapshot,
    VMSnapshotOut,
)

router = Router(tags=["snapshots"])


@router.get("/vms/{ref}/snapshots", response=Page[VMSnapshotOut])
def list_vm_snapshots(request: HttpRequest, ref: str, query: Query[PageQuery]) -> Slice:
    """The snapshots of a VM, newest first; ``parent`` makes a tree of them."""
    vm = resolve(VM.objects.all(), ref)
    return paginate(queries.snapshot_list().filter(vm=vm), query, "-created_at", "name")


@router.post("/vms/{ref}/snapshots", response=STARTED)
def create_vm_snapshot(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: SnapshotVM = SnapshotVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Keep what all drives of a VM hold at one instant; one that runs stands still meanwhile."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.snapshot_vm(vm, name=data.name))


@router.get("/vm-snapshots/{ref}", response=VMSnapshotOut)
def get_vm_snapshot(request: HttpRequest, ref: str) -> VMSnapshot:
    return resolve(queries.snapshot_list(), ref)


@router.patch("/vm-snapshots/{ref}", response=VMSnapshotOut)
def update_vm_snapshot(
    request: HttpRequest, ref: str, data: UpdateVMSnapshot, query: Query[ChangeQuery]
) -> HttpResponse:
    """Rename a snapshot."""
    snapshot = resolve(queries.snapshot_list(), ref)
    return carry_out(
        request,
        query,
        lambda: services.rename_vm_snapshot(snapshot, data.name),
        shown_as=VMSnapshotOut,
    )


@router.delete("/vm-snapshots/{ref}", response=STARTED)
def delete_vm_snapshot(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a snapshot and those of its drives; clones made of it stay."""
    snapshot = resolve(queries.snapshot_list(), ref)
    return carry_out(request, query, lambda: services.delete_vm_snapshot(snapshot))


@router.post("/vms/{ref}/rollback", response=STARTED)
def roll_back_vm(
    request: HttpRequest, ref: str, data: RollBackVM, query: Query[ChangeQuery]
) -> HttpResponse:
    """Give all drives of a VM at rest what they held in a snapshot; with ``stop``, of one that
    runs: it is shut down before and started again after, as one operation."""
    vm = resolve(VM.objects.shown(), ref)
    snapshot = resolve(VMSnapshot.objects.select_related("vm"), data.snapshot)
    return carry_out(request, query, lambda: services.rollback_vm(vm, snapshot, stop=data.stop))


@router.post("/vms/{ref}/clone", response=STARTED)
def clone_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: CloneVM = CloneVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """A new VM with copies of all drives, as they are now or in a snapshot, and an identity of
    its own: MAC address, hostname, machine ID, SSH host keys."""
    vm = resolve(VM.objects.shown(), ref)
    wishes = data.model_dump(exclude={"snapshot"}, exclude_none=True)
    snapshots = VMSnapshot.objects.select_related("vm")
    snapshot = resolve(snapshots, data.snapshot) if data.snapshot else None
    return carry_out(request, query, lambda: services.clone_vm(vm, snapshot=snapshot, **wishes))


@router.post("/drives/{ref}/rollback", response=STARTED, tags=["drives"])
def roll_back_drive(
    request: HttpRequest, ref: str, data: RollBackDrive, query: Query[ChangeQuery]
) -> HttpResponse:
    """Give a drive what it held in one of its snapshots; with ``stop``, a VM that runs with it
    is shut down before and started again after, as one operation."""
    drive = resolve(Drive.objects.all(), ref)
    snapshot = resolve(Snapshot.objects.select_related("drive"), data.snapshot)
    return carry_out(
        request, query, lambda: services.rollback_drive(drive, snapshot, stop=data.stop)
    )

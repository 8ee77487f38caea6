"""Snapshots of drives over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from drives import services
from drives.models import Drive, Snapshot
from drives.schemas import SnapshotDetail, SnapshotOut, TakeSnapshot, UpdateSnapshot
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router(tags=["drives"])

_ORDERS = ("-created_at", "name", "size_bytes")


class SnapshotQuery(PageQuery):
    drive: str = Field("", description="Only those of this drive (name or ID).")


@router.get("/snapshots", response=Page[SnapshotOut])
def list_snapshots(request: HttpRequest, query: Query[SnapshotQuery]) -> Slice:
    """Snapshots of drives, newest first."""
    rows = services.snapshot_list()
    if query.drive:
        rows = rows.filter(drive=resolve(Drive.objects.all(), query.drive))
    return paginate(rows, query, *_ORDERS)


@router.get("/drives/{ref}/snapshots", response=Page[SnapshotOut])
def list_drive_snapshots(request: HttpRequest, ref: str, query: Query[PageQuery]) -> Slice:
    """The snapshots of a drive, newest first."""
    drive = resolve(Drive.objects.all(), ref)
    return paginate(services.snapshot_list().filter(drive=drive), query, *_ORDERS)


@router.post("/drives/{ref}/snapshots", response=STARTED)
def take_snapshot(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: TakeSnapshot = TakeSnapshot(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """Keep what a drive holds now; a VM that runs stands still for a moment."""
    drive = resolve(Drive.objects.all(), ref)
    return carry_out(request, query, lambda: services.take_snapshot(drive, name=data.name))


@router.get("/snapshots/{ref}", response=SnapshotDetail)
def get_snapshot(request: HttpRequest, ref: str) -> Snapshot:
    return resolve(services.snapshot_list(), ref)


@router.patch("/snapshots/{ref}", response=SnapshotDetail)
def update_snapshot(
    request: HttpRequest, ref: str, data: UpdateSnapshot, query: Query[ChangeQuery]
) -> HttpResponse:
    """Rename a snapshot."""
    snapshot = resolve(services.snapshot_list(), ref)

    def change() -> Snapshot:
        same = data.name == snapshot.name
        return snapshot if same else services.rename_snapshot(snapshot, data.name)

    return carry_out(request, query, change, shown_as=SnapshotDetail)


@router.delete("/snapshots/{ref}", response=STARTED)
def delete_snapshot(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a snapshot that is a part of no VM's; drives made of it stay."""
    snapshot = resolve(Snapshot.objects.all(), ref)
    return carry_out(request, query, lambda: services.delete_snapshot(snapshot))

"""Drives over HTTP. Attaching them and rolling them back is the VMs' business (``vms.api``)."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router, Schema

from drives import services
from drives.models import Drive, Snapshot
from drives.schemas import CreateDrive, DriveDetail, DriveOut, ResizeDrive, UpdateDrive
from images.models import Image
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router(tags=["drives"])

DRIVES = services.drive_list()


class DriveQuery(PageQuery):
    image: str = Field("", description="Only drives that descend from this image (name or ID).")
    attached: bool | None = Field(None, description="Only drives that are in a VM, or in none.")


class DeleteDriveQuery(Schema):
    with_snapshots: bool = Field(False, description="Delete its snapshots too.")


@router.get("/drives", response=Page[DriveOut])
def list_drives(request: HttpRequest, query: Query[DriveQuery]) -> Slice:
    rows = DRIVES.all()
    if query.image:
        rows = rows.filter(image=resolve(Image.objects.all(), query.image))
    if query.attached is not None:
        rows = rows.filter(attachment__isnull=not query.attached)
    return paginate(rows, query, "-created_at", "name", "size_bytes")


@router.post("/drives", response=STARTED)
def create_drive(
    request: HttpRequest, data: CreateDrive, query: Query[ChangeQuery]
) -> HttpResponse:
    """A writable copy of an image, a drive or a snapshot; or an empty drive of a size."""
    image = resolve(Image.objects.all(), data.image) if data.image else None
    drive = resolve(Drive.objects.all(), data.drive) if data.drive else None
    snapshot = resolve(Snapshot.objects.all(), data.snapshot) if data.snapshot else None
    return carry_out(
        request,
        query,
        lambda: services.create_drive(
            name=data.name,
            image=image,
            drive=drive,
            snapshot=snapshot,
            size_mib=data.size_mib,
            delete_with_vm=data.delete_with_vm,
        ),
    )


@router.get("/drives/{ref}", response=DriveDetail)
def get_drive(request: HttpRequest, ref: str) -> Drive:
    """All about a drive: what it takes on the disk, its snapshots, what was made of it."""
    return resolve(services.drive_detail(), ref)


@router.patch("/drives/{ref}", response=DriveDetail)
def update_drive(
    request: HttpRequest, ref: str, data: UpdateDrive, query: Query[ChangeQuery]
) -> HttpResponse:
    """Rename a drive; say whether it goes with its VM."""
    drive = resolve(Drive.objects.all(), ref)

    @transaction.atomic
    def change() -> Drive:
        if data.name is not None and data.name != drive.name:
            services.rename_drive(drive, data.name)
        if data.delete_with_vm is not None and data.delete_with_vm != drive.delete_with_vm:
            services.set_delete_with_vm(drive, data.delete_with_vm)
        return services.drive_detail().get(pk=drive.pk)

    return carry_out(request, query, change, shown_as=DriveDetail)


@router.post("/drives/{ref}/resize", response=STARTED)
def resize_drive(
    request: HttpRequest, ref: str, data: ResizeDrive, query: Query[ChangeQuery]
) -> HttpResponse:
    """Make a drive at rest larger, and the ext4 file system on it."""
    drive = resolve(Drive.objects.all(), ref)
    return carry_out(request, query, lambda: services.resize_drive(drive, data.size_mib))


@router.delete("/drives/{ref}", response=STARTED)
def delete_drive(
    request: HttpRequest, ref: str, query: Query[ChangeQuery], options: Query[DeleteDriveQuery]
) -> HttpResponse:
    """Delete a drive, which must be in no VM, and all that is on it."""
    drive = resolve(DRIVES.all(), ref)
    return carry_out(request, query, lambda: services.delete_drive(drive, **options.model_dump()))

"""Drives over HTTP. Attaching one is the VMs' business (``vms.api``)."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from drives import services
from drives.models import Drive
from drives.schemas import CreateDrive, DriveOut
from images.models import Image
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router(tags=["drives"])

DRIVES = Drive.objects.select_related("image", "attachment__vm")


class DriveQuery(PageQuery):
    image: str = Field("", description="Only drives made from this image (name or ID).")
    attached: bool | None = Field(None, description="Only drives that are in a VM, or in none.")


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
    """A writable copy of an image."""
    image = resolve(Image.objects.all(), data.image)
    return carry_out(
        request,
        query,
        lambda: services.create_drive(image=image, name=data.name, size_mib=data.size_mib),
    )


@router.get("/drives/{ref}", response=DriveOut)
def get_drive(request: HttpRequest, ref: str) -> Drive:
    return resolve(DRIVES.all(), ref)


@router.delete("/drives/{ref}", response=STARTED)
def delete_drive(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a drive, which must be in no VM, and all that is on it."""
    drive = resolve(DRIVES.all(), ref)
    return carry_out(request, query, lambda: services.delete_drive(drive))

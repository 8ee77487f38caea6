"""Drives to take away and to bring in, over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router

from drives.models import Drive, Snapshot
from drives.services import transfers
from images import uploads
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.schemas import BINARY_BODY, ChangeQuery
from nexus_site.core.streaming import Download

router = Router(tags=["drives"])


class ImportDriveQuery(ChangeQuery):
    """What is uploaded, and how to carry it out."""

    name: str = Field("", max_length=63, description="Left out, the one that it was exported by.")
    size_mib: int | None = Field(
        None, ge=1, le=16 * 1024 * 1024, description="Left out, the disk's size."
    )
    delete_with_vm: bool = Field(False, description="Whether it goes with the VM that it is in.")
    sha256: str = Field("", pattern="^([0-9a-fA-F]{64})?$", description="Refused if it differs.")
    filename: str = Field("", max_length=200, description="Where it comes from, for people.")


@router.get("/drives/{ref}/export")
def export_drive(request: HttpRequest, ref: str) -> Download:
    """The drive, which must be at rest, as an archive: ``.tar.zst``, with its holes."""
    return _download(transfers.export_drive(resolve(_DRIVES.all(), ref)))


@router.get("/snapshots/{ref}/export")
def export_snapshot(request: HttpRequest, ref: str) -> Download:
    """The snapshot as an archive, like that of a drive; what uses the drive goes on."""
    rows = Snapshot.objects.select_related("drive__image")
    return _download(transfers.export_snapshot(resolve(rows, ref)))


@router.post("/drives/import", response=STARTED, openapi_extra=BINARY_BODY)
def import_drive(request: HttpRequest, query: Query[ImportDriveQuery]) -> HttpResponse:
    """A drive from the file in the request's body: an exported drive, a raw disk or qcow2."""
    upload = uploads.receive(request, sha256=query.sha256, filename=query.filename)
    try:
        return carry_out(
            request,
            query,
            lambda: transfers.import_drive(
                upload,
                name=query.name,
                size_mib=query.size_mib,
                delete_with_vm=query.delete_with_vm,
            ),
            content=f"{upload.sha256} {query.name} {query.size_mib} {query.delete_with_vm}",
        )
    finally:  # refused, a dry run, or the second time that the same was sent
        uploads.discard_unless_named(upload.ref)


_DRIVES = Drive.objects.select_related("image", "attachment__vm")


def _download(export: transfers.Export) -> Download:
    return Download(export.pieces, export.filename)

"""Drives and snapshots to take away as files, and files that become drives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from drives.live import live
from drives.models import Drive, Snapshot
from drives.services.drives import check_limit, discard, find, mark_ready, require_file
from drives.services.guards import require_free_name, require_ready
from drives.services.places import file_of, storage
from drives.services.rows import MIB, progress_of, size_text
from drives.transfers import archive, incoming
from drives.transfers.archive import ImageRef, Manifest
from drives.transfers.incoming import Found
from images import uploads
from images.models import Image
from images.uploads import Upload
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError
from nexus_site.core.ids import NexusID, check_name, free_name, is_id
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

_DEADLINE = timedelta(hours=6)  # for the largest of disks


@dataclass(frozen=True)
class Export:
    """A file to take away: its name, and its bytes in pieces."""

    filename: str
    pieces: Iterator[bytes]


def export_drive(drive: Drive) -> Export:
    """A drive at rest as an archive. Raises ``Conflict`` while a VM that runs has it."""
    require_ready(drive)
    path = require_file(drive)
    try:
        live().require_rest(drive, "be exported")
    except Conflict as refusal:
        refusal.hint = (
            f"Take a snapshot and export that: nexusctl snapshot create {drive.name}, "
            "then nexusctl snapshot export SNAPSHOT"
        )
        raise
    return _export(path, drive.name, drive.image)


def export_snapshot(snapshot: Snapshot) -> Export:
    """A snapshot as an archive; its drive may be in use."""
    require_ready(snapshot)
    path = file_of(snapshot)
    if not path.exists():
        raise Broken(
            f"The file of the snapshot “{snapshot.name}” is missing.",
            hint="nexusctl storage check says what else is.",
            code="snapshot-missing",
        )
    return _export(path, snapshot.name, snapshot.drive.image)


def _export(path: Path, name: str, image: Image | None) -> Export:
    manifest = Manifest(
        name=name,
        size_bytes=path.stat().st_size,
        image=ImageRef(id=image.ref, name=image.name, digest=image.digest) if image else None,
        exported_at=timezone.now(),
    )
    return Export(f"{name}{archive.SUFFIX}", archive.pack(path, manifest))


def import_drive(
    upload: Upload,
    *,
    name: str = "",
    size_mib: int | None = None,
    delete_with_vm: bool = False,
) -> Operation:
    """A drive from an uploaded file: an exported drive, a raw disk or qcow2.

    Without ``name`` it is called as it was when it was exported. With ``size_mib`` it is grown
    to that size. Raises ``Invalid`` for what is no drive, ``Conflict`` for a taken name.
    """
    found = incoming.look(upload.path)
    _check_size(found.size_bytes, size_mib)
    with transaction.atomic():
        drive = _new_row(found, name, size_mib, delete_with_vm)
        return open_operation(
            "drive.import",
            f"Import drive {drive.name}",
            subject=drive,
            params={
                "drive": drive.ref,
                "upload": upload.ref,
                "filename": upload.filename,
                "size_mib": size_mib,
            },
            deadline=_DEADLINE,
        )


def _new_row(found: Found, name: str, size_mib: int | None, delete_with_vm: bool) -> Drive:
    if name:
        require_free_name(Drive, name)
    elif found.manifest is not None:
        name = check_name(found.manifest.name)
    drive = Drive.objects.create(
        name=free_name(lambda taken: Drive.objects.filter(name=taken).exists(), name),
        origin=Drive.Origin.IMPORT,
        image=_image(found),
        size_bytes=max(found.size_bytes or 0, (size_mib or 0) * MIB),
        delete_with_vm=delete_with_vm,
    )
    events.append("drive.created", drive, origin=drive.origin, source="")
    return drive


def _image(found: Found) -> Image | None:
    """The image that the drive descends from, where the very same is here."""
    said = found.manifest.image if found.manifest else None
    if said is None or not is_id(said.id):
        return None
    return Image.objects.filter(pk=NexusID.parse(said.id), digest=said.digest).first()


def _check_size(size_bytes: int | None, size_mib: int | None) -> None:
    if size_mib is None:
        return
    check_limit(size_mib)
    if size_bytes is not None and size_mib * MIB < size_bytes:
        raise Invalid(
            f"The disk in the file has {size_bytes // MIB} MiB; {size_mib} were asked for.",
            hint="Leave the size out to get the disk's.",
            code="drive-too-small",
        )


# What workers run


def import_plan(operation: Operation) -> Plan:
    return [
        Step("receive", "Take the disk in", _receive, undo=_drop),
        Step("grow", "Grow it to its size", _grow, done=_fits),
        Step("keep", "Keep it", _keep, keeps=True),
    ]


def give_up(operation: Operation, error: NexusError) -> None:
    """The upload of an operation that failed for good is of no use any more."""
    uploads.discard(operation.params["upload"])


def _receive(run: Run) -> str:
    drive = _row(run)
    upload = uploads.find_upload(run.params["upload"])
    found = incoming.look(upload.path)
    with storage().receive(drive.ref) as place:
        drive.size_bytes = incoming.write_disk(upload.path, place, found, progress_of(run))
        _check_size(drive.size_bytes, run.params["size_mib"])
    run.keep(size_bytes=drive.size_bytes)
    return f"{drive.name}, {size_text(drive)}"


def _fits(run: Run) -> str | None:
    return None if run.params["size_mib"] else "it stays as large as it was"


def _grow(run: Run) -> None:
    size_bytes = run.params["size_mib"] * MIB
    storage().resize(run.params["drive"], size_bytes, progress_of(run))
    run.keep(size_bytes=size_bytes)


def _keep(run: Run) -> None:
    drive = _row(run)
    drive.size_bytes = run.made["size_bytes"]
    mark_ready(drive)
    uploads.discard(run.params["upload"])


def _row(run: Run) -> Drive:
    drive = find(run)
    if drive is None:
        raise Conflict("The drive has been deleted meanwhile.", code="drive-gone")
    return drive


def _drop(run: Run) -> None:
    drive = find(run)
    if drive is not None:
        discard(drive)

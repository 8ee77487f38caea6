"""Drives are made from an image, from another drive, from a snapshot, or empty."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from django.db import transaction

from drives.live import live
from drives.models import Consistency, Drive, Snapshot
from drives.services.drives import check_limit, discard, find, mark_creating, mark_ready
from drives.services.guards import require_free_name, require_idle, require_ready
from drives.services.places import file_of, storage
from drives.services.rows import MIB, locked, progress_of, settle, size_text
from drives.storage.copy import CopyStorage
from images.files import differing_ranges, system_errors
from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, Invalid
from nexus_site.core.ids import check_name, free_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

MOST_CHANGES = 1000  # ranges: more of them are not worth their place in the database


@transaction.atomic
def create_drive(
    *,
    name: str = "",
    image: Image | None = None,
    drive: Drive | None = None,
    snapshot: Snapshot | None = None,
    size_mib: int | None = None,
    delete_with_vm: bool = False,
) -> Operation:
    """A writable copy of an image, a drive or a snapshot; of none of them, an empty ext4 drive.

    With ``size_mib`` it is grown to that size. Raises ``Invalid`` for more than one source, or
    none and no size, and for a size below the source's.
    """
    sources = [source for source in (image, drive, snapshot) if source is not None]
    if len(sources) > 1 or (not sources and size_mib is None):
        raise Invalid(
            "Give one of image, drive and snapshot, or a size for an empty drive.",
            hint="An image, a drive or a snapshot is copied; it may be given a larger size.",
            code="drive-source",
        )
    more: dict[str, Any] = {"size_mib": size_mib, "delete_with_vm": delete_with_vm, "strict": True}
    if image is not None:
        made = new_drive(image, name=name, **more)
    elif drive is not None:
        require_idle(drive)
        live().require_settled(drive)
        made = clone_row(drive, name=name, **more)
    elif snapshot is not None:
        made = clone_row(snapshot, name=name, **more)
    else:
        made = _new_row(name, Drive.Origin.EMPTY, 0, **more)
    return open_operation(
        "drive.create", f"Create drive {made.name}", subject=made, params={"drive": made.ref}
    )


def check_size(source: Image | Drive | Snapshot, size_mib: int) -> None:
    """Raises ``Invalid`` where a drive made of ``source`` cannot be that small."""
    if size_mib * MIB < source.size_bytes:
        kind = source._meta.model_name
        raise Invalid(
            f"A drive of “{source.name}” has at least {-(-source.size_bytes // MIB)} MiB; "
            f"{size_mib} were asked for.",
            hint=f"Leave the size out to get the {kind}'s.",
            code="drive-too-small",
        )


def new_drive(
    image: Image,
    *,
    name: str = "",
    size_mib: int | None = None,
    strict: bool = False,
    delete_with_vm: bool = False,
) -> Drive:
    """The row of a new drive of an image; its storage is still to be made (``fill``).

    A taken name gets a suffix, or with ``strict`` raises ``Conflict``.
    """
    if size_mib is not None:
        check_size(image, size_mib)
    return _new_row(
        name,
        Drive.Origin.IMAGE,
        image.size_bytes,
        size_mib=size_mib,
        delete_with_vm=delete_with_vm,
        strict=strict,
        image=image,
    )


@transaction.atomic
def clone_row(
    source: Drive | Snapshot,
    *,
    name: str = "",
    size_mib: int | None = None,
    delete_with_vm: bool = False,
    strict: bool = False,
) -> Drive:
    """The row of a new drive with the contents of another, or of a snapshot; ``fill`` copies.

    Until then the source refuses to be deleted or changed. Raises ``Conflict`` unless it is
    ready, or for a taken name with ``strict``.
    """
    source = locked(source)
    require_ready(source)
    if size_mib is not None:
        check_size(source, size_mib)
    of_snapshot = isinstance(source, Snapshot)
    drive = source.drive if isinstance(source, Snapshot) else source
    return _new_row(
        name,
        Drive.Origin.SNAPSHOT if of_snapshot else Drive.Origin.DRIVE,
        source.size_bytes,
        size_mib=size_mib,
        delete_with_vm=delete_with_vm,
        strict=strict,
        image=drive.image,
        source_drive=drive,
        source_snapshot=source if of_snapshot else None,
    )


def _new_row(
    name: str,
    origin: Drive.Origin,
    source_bytes: int,
    *,
    size_mib: int | None,
    delete_with_vm: bool,
    strict: bool,
    **made_of: Any,
) -> Drive:
    if name and strict:
        require_free_name(Drive, name)
    elif name:
        check_name(name)
    if size_mib is not None:
        check_limit(size_mib)
    drive = Drive.objects.create(
        name=free_name(lambda taken: Drive.objects.filter(name=taken).exists(), name),
        origin=origin,
        size_bytes=size_mib * MIB if size_mib else source_bytes,
        delete_with_vm=delete_with_vm,
        **made_of,
    )
    source = made_of.get("source_snapshot") or made_of.get("source_drive") or made_of.get("image")
    events.append("drive.created", drive, origin=origin.value, source=getattr(source, "name", ""))
    return drive


def fill(drive: Drive, run: Run) -> str:
    """Make the drive's storage from what it is a copy of and mark it ready; safe to repeat."""
    if drive.state == Drive.State.READY:
        return f"{drive.name}, {size_text(drive)}"
    note = _make_storage(drive, run)
    _finish(drive)
    _note_pristine(drive)
    return f"{drive.name}, {size_text(drive)}{note}"


def refill(drive: Drive, snapshot: Snapshot | None = None) -> None:
    """Make a drive of an image that nobody has used, or make it anew: as a snapshot is, or as
    its image; repeatable."""
    if snapshot is not None:
        storage().clone_snapshot(snapshot.ref, drive.ref)
    else:
        assert drive.image is not None, "made from it"
        storage().clone_image(drive.image.ref, drive.ref)
    _finish(drive)
    if snapshot is None:
        _note_pristine(drive)


def note_changes(snapshot: Snapshot) -> None:
    """Keep where the snapshot differs from its drive's image: what ``begin_refill`` has to copy to
    a drive that is as that image is."""
    image = snapshot.drive.image
    if image is None or image.size_bytes != snapshot.size_bytes:
        return
    if storage().name != CopyStorage.name:  # others copy nothing in any case
        return
    with system_errors():
        changes = differing_ranges(
            storage().image_path(image.ref), storage().snapshot_path(snapshot.ref)
        )
    if len(changes) <= MOST_CHANGES:
        snapshot.changes = changes
        snapshot.save(update_fields=["changes"])


def begin_refill(drive: Drive, snapshot: Snapshot) -> Callable[[], None]:
    """``refill`` of a drive while a VMM opens it: it is whole, and ready again, once what this
    returns has been called, which may be done again.

    Nobody copies a drive whose VM is being started.
    """
    if drive.size_bytes > snapshot.size_bytes:
        refill(drive, snapshot)  # it takes another file's place when it grows
        return lambda: None
    changes = snapshot.changes if _is_as_image(drive, snapshot) else None
    if drive.state == Drive.State.READY:
        mark_creating(drive)  # a start that is cut short leaves what the next one makes anew
    copied = storage().begin_clone(snapshot.ref, drive.ref, changes)

    def finish() -> None:
        copied()
        _finish(drive)

    return finish


def copy_bytes(sources: Sequence[Drive | Snapshot]) -> int:
    """What copies of them take on the disk: nothing at first, where blocks are shared."""
    if storage().name != CopyStorage.name:
        return 0
    return sum(storage().usage(file_of(source)).used_bytes for source in sources)


def drop_storage(drive: Drive) -> None:
    """Free what a drive takes of which only the snapshots are needed; it counts as missing."""
    storage().delete(drive.ref)
    settle(drive)


def mark_used(drives: Sequence[Drive]) -> None:
    """Guests have them from now on: they are not what they were made from."""
    Drive.objects.filter(pk__in=[drive.pk for drive in drives]).update(used=True)
    for drive in drives:
        drive.used = True


def _is_as_image(drive: Drive, snapshot: Snapshot) -> bool:
    """Whether the drive is what the snapshot's own was made as, and nobody has changed it."""
    untouched = drive.state == Drive.State.READY and drive.pristine and not drive.used
    return untouched and drive.image_id == snapshot.drive.image_id


def _note_pristine(drive: Drive) -> None:
    """It has just been made; one that is larger than its image has another file system."""
    image = drive.image if drive.origin == Drive.Origin.IMAGE else None
    drive.pristine = image is not None and image.size_bytes == drive.size_bytes
    drive.save(update_fields=["pristine"])


def _finish(drive: Drive) -> None:
    """It has been copied: give it its size, and mark it ready."""
    copied_bytes = storage().drive_path(drive.ref).stat().st_size
    if copied_bytes < drive.size_bytes:
        storage().resize(drive.ref, drive.size_bytes)
    drive.size_bytes = max(copied_bytes, drive.size_bytes)
    if drive.state != Drive.State.READY:
        mark_ready(drive)


def _make_storage(drive: Drive, run: Run) -> str:
    """The drive's file, of its source's size; what there is to say about it."""
    progress = progress_of(run)
    if drive.origin == Drive.Origin.IMAGE:
        assert drive.image is not None, "made from it"
        storage().clone_image(drive.image.ref, drive.ref, progress)
    elif drive.origin == Drive.Origin.EMPTY:
        if not storage().drive_path(drive.ref).exists():
            storage().create(drive.ref, drive.size_bytes, label=drive.name[:16])
    elif drive.origin == Drive.Origin.SNAPSHOT and drive.source_snapshot is not None:
        storage().clone_snapshot(drive.source_snapshot.ref, drive.ref, progress)
    elif drive.origin == Drive.Origin.DRIVE and drive.source_drive is not None:
        with live().hold([drive.source_drive], run) as consistency:
            storage().clone_drive(drive.source_drive.ref, drive.ref, progress)
        return f", {Consistency(consistency).label}"
    else:
        raise Broken(
            f"What the drive “{drive.name}” was to be made of is gone.",
            hint="Delete it and make another one.",
            code="drive-source-gone",
        )
    return ""


# What workers run


def create_plan(operation: Operation) -> Plan:
    return [Step("storage", "Make the storage", _create, undo=_drop)]


def _create(run: Run) -> str:
    drive = find(run)
    if drive is None:
        raise Conflict("The drive has been deleted meanwhile.", code="drive-gone")
    return fill(drive, run)


def _drop(run: Run) -> None:
    drive = find(run)
    if drive is not None:
        discard(drive)

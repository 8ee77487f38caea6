"""Disks that somebody sends: exported drives, raw disks and qcow2, compressed or not.

What a file is, it says by its content. A raw disk must begin like one, since a drive of a
mistaken file would be of no use.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from drives.transfers.archive import DriveArchive, Manifest
from drives.transfers.target import MAX_SIZE, require_room, room_on, target, whole_mib
from images.files import Progress, no_progress
from images.formats import qcow2
from images.formats.archives import opened, plain_disk
from images.formats.compression import HEAD, compression_of
from images.formats.disks import Disk, RawDisk, open_disk
from images.formats.filling import Watch
from images.formats.tar_reader import BLOCK, is_header
from nexus_site.core.errors import Invalid

_STEP = 1 << 20
_MAX_BYTES = MAX_SIZE + (64 << 20)  # of an archive: a disk, and what stands beside it
_LOOKED_AT = 68 << 10
#: What disks begin with, and where: a partition table, or one of these file systems.
_SIGNATURES = (
    (510, b"\x55\xaa"),
    (1080, b"\x53\xef"),  # ext2, ext3, ext4
    (0, b"XFSB"),
    (0x1_0040, b"_BHRfS_M"),  # btrfs
    (1024, b"\x10\x20\xf5\xf2"),  # F2FS
    (1024, b"\xe2\xe1\xf5\xe0"),  # EROFS
    (0, b"hsqs"),  # squashfs
    (0x8001, b"CD001"),  # ISO 9660
    (0, b"LUKS\xba\xbe"),
    (512, b"LABELONE"),  # LVM
    (4086, b"SWAPSPACE2"),
)


@dataclass(frozen=True)
class Found:
    """What a file holds. ``size_bytes`` is that of the drive; None before all is unpacked."""

    size_bytes: int | None
    manifest: Manifest | None = None


def look(path: Path) -> Found:
    """Find out what a file holds, from its beginning. ``Invalid`` for what is no drive."""
    with opened(path, _MAX_BYTES) as stream:
        head = stream.read(_LOOKED_AT)
    if _is_disk(head):
        return Found(None if _is_compressed(path) else whole_mib(_disk_size(path)))
    if is_header(head[:BLOCK]):
        with opened(path, _MAX_BYTES) as stream:
            manifest = DriveArchive(stream).manifest
        return Found(whole_mib(manifest.size_bytes), manifest)
    raise Invalid(
        "The file is no drive that Nexus can read.",
        hint="It reads what nexusctl drive export writes, qcow2, and raw disks with a partition "
        "table or a file system; compressed or not.",
        code="format-unknown",
    )


def write_disk(source: Path, into: Path, found: Found, progress: Progress = no_progress) -> int:
    """Write the disk in ``source`` into the empty file ``into``; the drive's size.

    Raises ``Invalid`` for what is damaged or lies, ``Retryable`` (``disk-full``) for what does
    not fit; ``into`` is of no use then.
    """
    if found.manifest is not None:
        return _write_archive(source, into, progress)
    with plain_disk(source, source.parent, _guard(source.parent, progress)) as plain:
        return _copy(plain, into, progress)


def _guard(directory: Path, progress: Progress) -> Watch:
    """What ends the unpacking into ``directory`` before its disk is full."""
    spare = shutil.disk_usage(directory).free - room_on(directory)

    def watch(_: int) -> None:
        progress(0, 1)
        require_room(spare, shutil.disk_usage(directory).free)

    return watch


def _write_archive(source: Path, into: Path, progress: Progress) -> int:
    room = room_on(into.parent)
    with opened(source, _MAX_BYTES) as stream:
        archive = DriveArchive(stream)
        size, data = archive.manifest.size_bytes, archive.data_bytes
        require_room(data, room)
        with target(into, size, data, room, progress) as disk:
            archive.write(disk)
            return disk.size


def _copy(source: Path, into: Path, progress: Progress) -> int:
    with open_disk(source) as disk:
        expected = sum(end - start for start, end in disk.extents())
        return _copy_extents(disk, into, expected, progress)


def _copy_extents(disk: Disk, into: Path, expected: int, progress: Progress) -> int:
    with target(into, disk.size, expected, room_on(into.parent), progress) as file:
        for start, end in disk.extents():
            for offset in range(start, end, _STEP):
                file.write(offset, disk.read_at(offset, min(_STEP, end - offset)))
        return file.size


def _is_disk(head: bytes) -> bool:
    return head.startswith(qcow2.MAGIC) or any(
        head[at : at + len(magic)] == magic for at, magic in _SIGNATURES
    )


def _disk_size(path: Path) -> int:
    """What the header of a qcow2 image says, else the file's size."""
    with RawDisk(path) as file:
        if file.read_at(0, min(len(qcow2.MAGIC), file.size)) == qcow2.MAGIC:
            return qcow2.read_header(file).size
        return file.size


def _is_compressed(path: Path) -> bool:
    with path.open("rb") as file:
        return bool(compression_of(file.read(HEAD)))

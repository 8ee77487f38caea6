"""Where images, drives and snapshots are kept: one sparse file each.

A backend decides only how one file becomes an independent copy of another. Everything else
(names, atomic replacement, growing, deleting) is the same for all and is here. Storage knows
nothing of the database: it takes IDs as names of files and returns paths.

    <data_dir>/images/<image>.ext4          read-only
    <data_dir>/drives/<drive>.img           a VM writes to it
    <data_dir>/drives/snapshots/<id>.img    read-only

A drive must not be in use by a VM while it is the source or the subject of a call, except for
``usage``; who calls sees to that. Every call leaves the old or the new state, and never half.
"""

from __future__ import annotations

import abc
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from images.files import Progress, move_file, no_progress, sweep, whole_file
from images.formats.e2fsprogs import grow
from nexus_site.core.errors import Conflict, Invalid, NotFound, as_nexus_error

READ_ONLY, READ_WRITE = 0o400, 0o600

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_EXT4_MAGIC, _EXT4_MAGIC_AT = b"\x53\xef", 1024 + 0x38
_MAX_SIZE = 16 << 40


@dataclass(frozen=True)
class Usage:
    """What one file is and costs. Blocks that are shared with other files count in each."""

    size_bytes: int  # what a VM sees
    used_bytes: int  # on the host's disk


@dataclass(frozen=True)
class Capacity:
    """The file system that the storage is on."""

    total_bytes: int
    free_bytes: int  # for this user


@dataclass(frozen=True)
class Probe:
    """Whether a backend works on a data directory; ``problem`` says why not."""

    name: str
    usable: bool
    problem: str = ""


class Storage(abc.ABC):
    """A backend on one data directory. Safe to use from several threads on different files.

    All calls raise ``Invalid`` for an ID that is no name, ``NotFound`` for a file that is not
    there, ``Retryable`` (``disk-full``) and ``Broken`` as the system does.
    """

    name: ClassVar[str]

    def __init__(self, data_dir: Path) -> None:
        self.images_dir = data_dir / "images"
        self.drives_dir = data_dir / "drives"
        self.snapshots_dir = self.drives_dir / "snapshots"
        try:
            for directory in self._directories:
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise as_nexus_error(error) from error

    @classmethod
    @abc.abstractmethod
    def probe(cls, data_dir: Path) -> Probe:
        """Find out by trying whether this backend works in ``data_dir``."""

    @abc.abstractmethod
    def _copy(self, source: Path, target: Path, progress: Progress) -> None:
        """Make ``target`` (an empty file) an independent copy. ``OSError`` may come out."""

    @property
    def _directories(self) -> tuple[Path, ...]:
        return self.images_dir, self.drives_dir, self.snapshots_dir

    def image_path(self, image_id: str) -> Path:
        """Where an image's file is, or would be."""
        return self.images_dir / f"{_checked(image_id)}.ext4"

    def drive_path(self, drive_id: str) -> Path:
        """Where a drive's file is, or would be."""
        return self.drives_dir / f"{_checked(drive_id)}.img"

    def snapshot_path(self, snapshot_id: str) -> Path:
        """Where a snapshot's file is, or would be."""
        return self.snapshots_dir / f"{_checked(snapshot_id)}.img"

    def import_image(self, source: Path, image_id: str, progress: Progress = no_progress) -> Path:
        """Take the file ``source`` over as an image: it is moved here and made read-only.

        Repeated after it worked (the source is gone, the image is here) it changes nothing.
        """
        target = self.image_path(image_id)
        if not source.exists() and target.exists():
            return target
        _require(source)
        move_file(source, target, READ_ONLY, progress)
        return target

    def create(self, drive_id: str, size_bytes: int) -> Path:
        """An empty drive: all zeros, which cost nothing. ``Conflict`` if it is there already."""
        target = self.drive_path(drive_id)
        _check_size(size_bytes)
        if target.exists():
            raise Conflict(f"The drive {drive_id} exists already.")
        with whole_file(target, READ_WRITE) as temporary:
            os.truncate(temporary, size_bytes)
        return target

    def clone_image(self, image_id: str, drive_id: str, progress: Progress = no_progress) -> Path:
        """A new drive (or the same drive anew) with the contents of an image."""
        return self._clone(self.image_path(image_id), self.drive_path(drive_id), progress)

    def clone_drive(self, source_id: str, drive_id: str, progress: Progress = no_progress) -> Path:
        """A drive with the contents that another one has now."""
        return self._clone(self.drive_path(source_id), self.drive_path(drive_id), progress)

    def clone_snapshot(
        self, snapshot_id: str, drive_id: str, progress: Progress = no_progress
    ) -> Path:
        """A drive with the contents of a snapshot."""
        return self._clone(self.snapshot_path(snapshot_id), self.drive_path(drive_id), progress)

    def snapshot(self, drive_id: str, snapshot_id: str, progress: Progress = no_progress) -> Path:
        """Keep a drive's contents as they are now, read-only."""
        source, target = self.drive_path(drive_id), self.snapshot_path(snapshot_id)
        return self._clone(source, target, progress, READ_ONLY)

    def rollback(self, drive_id: str, snapshot_id: str, progress: Progress = no_progress) -> Path:
        """Give a drive the contents (and size) of a snapshot back."""
        _require(self.drive_path(drive_id))
        return self.clone_snapshot(snapshot_id, drive_id, progress)

    def resize(self, drive_id: str, size_bytes: int, progress: Progress = no_progress) -> None:
        """Make a drive larger, and the ext4 file system on it if there is one.

        ``Invalid`` for a size below the present one. The work is done on a copy that takes
        the drive's place, since growing a file system is not safe to interrupt.
        """
        path = self.drive_path(drive_id)
        present = self.usage(path).size_bytes
        _check_size(size_bytes)
        if size_bytes < present:
            raise Invalid(
                f"A drive cannot shrink: it has {present} bytes, {size_bytes} were asked for.",
                code="drive-too-small",
            )
        if size_bytes == present:
            return
        with whole_file(path, READ_WRITE) as temporary:
            self._copy(path, temporary, progress)
            os.truncate(temporary, size_bytes)
            if _has_ext4(temporary):
                grow(temporary)

    def delete(self, drive_id: str) -> None:
        """Delete a drive, if it is there; its snapshots stay."""
        _unlink(self.drive_path(drive_id))

    def delete_image(self, image_id: str) -> None:
        """Delete an image, if it is there; drives made from it stay."""
        _unlink(self.image_path(image_id))

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot, if it is there; drives made from it stay."""
        _unlink(self.snapshot_path(snapshot_id))

    def usage(self, path: Path) -> Usage:
        """Size and cost of an image, drive or snapshot, by its path."""
        _require(path)
        status = path.stat()
        return Usage(status.st_size, status.st_blocks * 512)

    def capacity(self) -> Capacity:
        """How much the disk under the storage holds, and how much of it is free."""
        disk = shutil.disk_usage(self.drives_dir)
        return Capacity(disk.total, disk.free)

    def sweep(self) -> list[Path]:
        """Remove what killed processes left half done; returns what it removed."""
        return [removed for directory in self._directories for removed in sweep(directory)]

    def _clone(
        self, source: Path, target: Path, progress: Progress, mode: int = READ_WRITE
    ) -> Path:
        _require(source)
        with whole_file(target, mode) as temporary:
            self._copy(source, temporary, progress)
        return target


def _checked(name: str) -> str:
    if not _ID.match(name):
        raise Invalid(f"{name!r} is no ID of an image, drive or snapshot.")
    return name


def _check_size(size_bytes: int) -> None:
    if not 0 < size_bytes <= _MAX_SIZE:
        raise Invalid(f"A drive has 1 to {_MAX_SIZE} bytes, not {size_bytes}.")


def _require(path: Path) -> None:
    if not path.is_file():
        raise NotFound(f"The file {path.name} of an image, drive or snapshot is missing.")


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise as_nexus_error(error) from error


def _has_ext4(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(_EXT4_MAGIC_AT)
        return file.read(len(_EXT4_MAGIC)) == _EXT4_MAGIC

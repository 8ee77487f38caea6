"""Where drives and snapshots are kept: what every backend promises.

A drive is one sparse file that a VM writes to; a snapshot is one that nobody does. Backends
differ in how one file becomes an independent copy of another, and in where the files are
(``drive_path`` and ``snapshot_path`` tell). Images belong to the room of images, which keeps them
at ``<data_dir>/images/<id>.ext4``; storage only reads them.

Storage knows nothing of the database: it takes IDs as names and returns paths. No VM may write
to a drive while it is the source or the subject of a call, except for ``usage``; who calls sees
to that. Every call leaves the old or the new state, never half, whenever the process is killed;
what a call has returned for survives a power cut.
"""

from __future__ import annotations

import abc
import os
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from drives.storage import pool
from images.files import Progress, no_progress, system_errors, whole_file
from images.formats.e2fsprogs import grow, make_ext4
from nexus_site.core.errors import Conflict, Invalid, NotFound

READ_ONLY, READ_WRITE = 0o400, 0o600
MIN_EXT4 = 1 << 20  # bytes
MAX_SIZE = 16 << 40

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}\Z")
_RESERVED = frozenset({"snapshots", "seeds"})  # directories among the drives
_EXT4_MAGIC, _EXT4_MAGIC_AT = b"\x53\xef", 1024 + 0x38


@dataclass(frozen=True)
class Usage:
    """What one file is and costs; None where the backend cannot tell."""

    size_bytes: int  # what a VM sees
    used_bytes: int  # data, on the host's disk; blocks that are shared count in each file
    exclusive_bytes: int | None  # of it, what deleting this file alone would free
    shared_bytes: int | None


@dataclass(frozen=True)
class Capacity:
    """The file system that the storage is on."""

    total_bytes: int
    free_bytes: int  # for this user


@dataclass(frozen=True)
class Inventory:
    """What is there, by ID."""

    drives: frozenset[str]
    snapshots: frozenset[str]
    leftovers: tuple[Path, ...]  # unfinished and forgotten; what is being worked on is none


@dataclass(frozen=True)
class Description:
    """The storage of a host, for people."""

    backend: str
    directory: Path  # of the drives
    file_system: str  # its type: "btrfs", "xfs", "ext4", …
    pool: Path | None  # the file that the file system is in, if Nexus made one
    quota_groups: bool  # whether exclusive and shared bytes come from them
    problems: tuple[str, ...]  # why the better backends do not work here, and what to do


@dataclass(frozen=True)
class Probe:
    """Whether a backend works on a data directory; ``problem`` says why not."""

    name: str
    usable: bool
    problem: str = ""


class Storage(abc.ABC):
    """A backend on one data directory. Safe to use from several threads on different drives.

    All calls raise ``Invalid`` for an ID that is no name, ``NotFound`` for a file that is not
    there, ``Retryable`` (``disk-full``) and ``Broken`` as the system does. Calls that take a
    ``progress`` tell it (bytes done, bytes in all).
    """

    name: ClassVar[str]

    def __init__(self, data_dir: Path, problems: Sequence[str] = ()) -> None:
        self.pool = pool.pool_path(data_dir)
        self.images_dir = data_dir / "images"
        self.drives_dir = pool.root_of(data_dir) / "drives"
        self.snapshots_dir = self.drives_dir / "snapshots"
        self._problems = tuple(problems)
        with system_errors():
            for directory in (self.images_dir, *self._directories):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def _directories(self) -> tuple[Path, ...]:
        return self.drives_dir, self.snapshots_dir

    # What backends provide

    @classmethod
    @abc.abstractmethod
    def probe(cls, data_dir: Path) -> Probe:
        """Find out by trying whether this backend works in ``data_dir``."""

    @abc.abstractmethod
    def drive_path(self, drive_id: str) -> Path:
        """Where a drive's file is, or would be."""

    @abc.abstractmethod
    def snapshot_path(self, snapshot_id: str) -> Path:
        """Where a snapshot's file is, or would be."""

    @abc.abstractmethod
    def receive(self, drive_id: str) -> AbstractContextManager[Path]:
        """An empty temporary file to fill; it is the drive when the block ends well.

        Whatever goes wrong, nothing of it stays. Repeated, it makes the drive anew.
        """

    @abc.abstractmethod
    def delete(self, drive_id: str) -> None:
        """Delete a drive, if it is there; its snapshots stay."""

    @abc.abstractmethod
    def delete_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot, if it is there; drives made from it stay."""

    @abc.abstractmethod
    def inventory(self) -> Inventory:
        """What is there, and what should not be."""

    @abc.abstractmethod
    def sweep(self) -> list[Path]:
        """Remove what killed processes left half done; returns what it removed.

        Safe at any time: what is being worked on stays.
        """

    @abc.abstractmethod
    def remove(self, leftover: Path) -> None:
        """Remove one of ``inventory().leftovers``, if it is still there."""

    @abc.abstractmethod
    def _copy(self, source: Path, target: Path, progress: Progress) -> None:
        """Make ``target`` (an empty file) an independent copy. ``OSError`` may come out."""

    @abc.abstractmethod
    def _seed(self, image_id: str, progress: Progress) -> Path:
        """The file to clone an image from."""

    @abc.abstractmethod
    def _clone(self, source: Path, drive_id: str, progress: Progress) -> None:
        """Make a drive, or make it anew."""

    @abc.abstractmethod
    def _keep(self, source: Path, snapshot_id: str, progress: Progress) -> None:
        """Make a snapshot, or make it anew."""

    @abc.abstractmethod
    def _shared_bytes(self, path: Path, used_bytes: int) -> int | None:
        """How much of a file's data is shared with others; None if nobody can tell."""

    # What is the same for all

    def image_path(self, image_id: str) -> Path:
        """Where an image's file is, or would be."""
        return self.images_dir / f"{checked(image_id)}.ext4"

    def create(self, drive_id: str, size_bytes: int, *, label: str = "") -> Path:
        """A drive with an empty ext4 file system. ``Conflict`` if the drive is there already."""
        check_size(size_bytes)
        if size_bytes < MIN_EXT4:
            raise Invalid(f"A drive has at least {MIN_EXT4 >> 20} MiB.", code="drive-too-small")
        target = self.drive_path(drive_id)
        if target.exists():
            raise Conflict(f"The drive {drive_id} exists already.")
        with self.receive(drive_id) as temporary:
            os.truncate(temporary, size_bytes)
            make_ext4(temporary, label)
        return target

    def clone_image(self, image_id: str, drive_id: str, progress: Progress = no_progress) -> Path:
        """A new drive (or the same drive anew) with the contents of an image."""
        require(self.image_path(image_id))
        target = self.drive_path(drive_id)
        with system_errors():
            self._clone(self._seed(image_id, progress), drive_id, progress)
        return target

    def clone_drive(self, source_id: str, drive_id: str, progress: Progress = no_progress) -> Path:
        """A drive with the contents that another one has now."""
        source, target = self.drive_path(source_id), self.drive_path(drive_id)
        require(source)
        if source == target:
            raise Conflict("A drive cannot be a clone of itself.")
        with system_errors():
            self._clone(source, drive_id, progress)
        return target

    def clone_snapshot(
        self, snapshot_id: str, drive_id: str, progress: Progress = no_progress
    ) -> Path:
        """A drive with the contents of a snapshot."""
        source, target = self.snapshot_path(snapshot_id), self.drive_path(drive_id)
        require(source)
        with system_errors():
            self._clone(source, drive_id, progress)
        return target

    def begin_clone(
        self, snapshot_id: str, drive_id: str, changes: Sequence[tuple[int, int]] | None = None
    ) -> Callable[[], object]:
        """``clone_snapshot`` for a drive that nobody reads yet: its file is there, and is whole
        once what this returns has been called. That raises as ``clone_snapshot`` does, and no file
        is left then. ``changes``: where the snapshot differs from what the drive holds, as (start,
        end) pairs in bytes; nothing else need be copied."""
        self.clone_snapshot(snapshot_id, drive_id)
        return lambda: None

    def snapshot(self, drive_id: str, snapshot_id: str, progress: Progress = no_progress) -> Path:
        """Keep a drive's contents as they are now, read-only; repeated, as they are then.

        A snapshot that is made anew may be missing for a moment.
        """
        source, target = self.drive_path(drive_id), self.snapshot_path(snapshot_id)
        require(source)
        with system_errors():
            self._keep(source, snapshot_id, progress)
        return target

    def rollback(self, drive_id: str, snapshot_id: str, progress: Progress = no_progress) -> Path:
        """Give a drive the contents (and size) of a snapshot back."""
        path, source = self.drive_path(drive_id), self.snapshot_path(snapshot_id)
        require(path)
        require(source)
        with whole_file(path, READ_WRITE) as temporary:
            self._copy(source, temporary, progress)
        return path

    def resize(self, drive_id: str, size_bytes: int, progress: Progress = no_progress) -> None:
        """Make a drive larger, and the ext4 file system on it if there is one.

        ``Invalid`` for a size below the present one. The work is done on a copy that takes
        the drive's place, since growing a file system is not safe to interrupt.
        """
        path = self.drive_path(drive_id)
        require(path)
        present = path.stat().st_size
        check_size(size_bytes)
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

    def usage(self, path: Path) -> Usage:
        """Size and cost of a drive, a snapshot or an image, by its path."""
        require(path)
        with system_errors():
            status = path.stat()
            used = status.st_blocks * 512
            shared = self._shared_bytes(path, used)
        exclusive = None if shared is None else max(used - shared, 0)
        return Usage(status.st_size, used, exclusive, shared)

    def capacity(self) -> Capacity:
        """How much the disk under the storage holds, and how much of it is free."""
        disk = shutil.disk_usage(self.drives_dir)
        free = disk.free
        if self.pool.exists():  # it is sparse: it cannot take more than the disk that it is on
            free = min(free, shutil.disk_usage(self.pool).free)
        return Capacity(disk.total, free)

    def describe(self) -> Description:
        """What this storage is, for people."""
        return Description(
            backend=self.name,
            directory=self.drives_dir,
            file_system=pool.file_system_of(self.drives_dir),
            pool=self.pool if self.pool.exists() else None,
            quota_groups=self._has_quota_groups(),
            problems=self._problems,
        )

    def _has_quota_groups(self) -> bool:
        return False

    def _require_leftover(self, path: Path) -> None:
        if path.exists() and path not in self.inventory().leftovers:
            raise Invalid(f"{path.name} is in use.")


def checked(name: str) -> str:
    """``name``, if it can name a drive, a snapshot or an image; else ``Invalid``."""
    if not _ID.match(name) or name in _RESERVED:
        raise Invalid(f"{name!r} is no ID of an image, drive or snapshot.")
    return name


def is_id(name: str) -> bool:
    """Whether ``checked`` would take it."""
    return bool(_ID.match(name)) and name not in _RESERVED


def check_size(size_bytes: int) -> None:
    """``Invalid`` for a size that no drive can have."""
    if not 0 < size_bytes <= MAX_SIZE:
        raise Invalid(f"A drive has 1 to {MAX_SIZE} bytes, not {size_bytes}.")


def require(path: Path) -> None:
    if not path.is_file():
        raise NotFound("The file of an image, drive or snapshot is missing.", detail=str(path))


def _has_ext4(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(_EXT4_MAGIC_AT)
        return file.read(len(_EXT4_MAGIC)) == _EXT4_MAGIC

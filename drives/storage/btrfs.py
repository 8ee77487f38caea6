"""The backend for btrfs: every drive and every snapshot is a subvolume with one file.

<root>/drives/<drive>/disk.img              a VM writes to it
<root>/drives/snapshots/<id>/disk.img       in a read-only subvolume: not even root writes to it
<root>/drives/seeds/<image>/disk.img        likewise; what the drives of an image are copies of

Seeds are made when an image is cloned for the first time, and go with it.

A clone or a snapshot is one call of the kernel, made straight under its final name and on the
disk when it returns. Rollback and resize replace the file in the drive's subvolume.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from drives.storage import kernel, pool
from drives.storage.base import READ_WRITE, Inventory, Probe, Storage, checked, is_id
from drives.storage.reflink import copy_shared
from images.files import (
    Progress,
    abandoned,
    is_part,
    locked_directory,
    part_name,
    sweep,
    sync_directory,
    system_errors,
    whole_file,
)
from nexus_site.core.errors import NexusError, as_nexus_error

FILE = "disk.img"

_PADDING = "user.nexus.padding"
_NOT_PADDING = 1384  # bytes of a leaf; what a directory has itself, and to spare


class BtrfsStorage(Storage):
    """Snapshots of subvolumes."""

    name = "btrfs"

    @classmethod
    def probe(cls, data_dir: Path) -> Probe:
        """Make, copy and destroy subvolumes."""
        try:
            root = pool.root_of(data_dir)
            with system_errors():
                root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if (file_system := pool.file_system_of(root)) != "btrfs":
                problem = f"The data directory is on {file_system}, not on btrfs."
                return Probe(cls.name, usable=False, problem=problem)
            _try_subvolumes(cls(data_dir).drives_dir)
        except (NexusError, OSError) as error:
            return Probe(cls.name, usable=False, problem=as_nexus_error(error).text)
        return Probe(cls.name, usable=True)

    @property
    def seeds_dir(self) -> Path:
        return self.drives_dir / "seeds"

    @property
    def _directories(self) -> tuple[Path, ...]:
        return self.drives_dir, self.snapshots_dir, self.seeds_dir

    def drive_path(self, drive_id: str) -> Path:
        return self.drives_dir / checked(drive_id) / FILE

    def snapshot_path(self, snapshot_id: str) -> Path:
        return self.snapshots_dir / checked(snapshot_id) / FILE

    @contextlib.contextmanager
    def receive(self, drive_id: str) -> Iterator[Path]:
        target = self.drive_path(drive_id)
        with system_errors():
            if not target.parent.exists():
                with _new_subvolume(target.parent) as part, whole_file(part / FILE) as temporary:
                    yield temporary
            else:
                with whole_file(target, READ_WRITE) as temporary:
                    yield temporary

    def delete(self, drive_id: str) -> None:
        _destroy(self.drive_path(drive_id).parent)

    def delete_snapshot(self, snapshot_id: str) -> None:
        _destroy(self.snapshot_path(snapshot_id).parent)

    def inventory(self) -> Inventory:
        leftovers: list[Path] = []
        drives = _ids(self.drives_dir, leftovers)
        snapshots = _ids(self.snapshots_dir, leftovers)
        for directory in (self.snapshots_dir, self.seeds_dir):
            leftovers.remove(directory)
        for drive in drives:
            leftovers += abandoned(self.drives_dir / drive)
        leftovers += self._seeds_of_nothing()
        return Inventory(drives, snapshots, tuple(leftovers))

    def sweep(self) -> list[Path]:
        with system_errors():
            drives = [path for path in self.drives_dir.iterdir() if kernel.is_subvolume(path)]
            directories = [*self._directories, *drives]
            removed = [part for directory in directories for part in sweep(directory)]
            for seed in self._seeds_of_nothing():
                _remove(seed)
                removed.append(seed)
        return removed

    def remove(self, leftover: Path) -> None:
        self._require_leftover(leftover)
        with system_errors():
            _remove(leftover)

    def _copy(self, source: Path, target: Path, progress: Progress) -> None:
        copy_shared(source, target, progress)

    def _seed(self, image_id: str, progress: Progress) -> Path:
        """The image as a read-only subvolume; made when it is first asked for."""
        image, seed = self.image_path(image_id), self.seeds_dir / image_id
        if _is_seed_of(seed / FILE, image):
            return seed / FILE
        _destroy(seed)
        with _part_subvolume(seed) as part:
            with whole_file(part / FILE, READ_WRITE) as temporary:
                copy_shared(image, temporary, progress)
                status = image.stat()
                os.utime(temporary, ns=(status.st_atime_ns, status.st_mtime_ns))
            with contextlib.suppress(FileExistsError):  # another thread was first
                kernel.snapshot_subvolume(part, seed, read_only=True)
        return seed / FILE

    def _clone(self, source: Path, drive_id: str, progress: Progress) -> None:
        target = self.drive_path(drive_id)
        if target.parent.exists():
            with whole_file(target, READ_WRITE) as temporary:
                self._copy(source, temporary, progress)
            return
        self._snapshot(source, target, progress, read_only=False)

    def _keep(self, source: Path, snapshot_id: str, progress: Progress) -> None:
        target = self.snapshot_path(snapshot_id)
        _destroy(target.parent)
        self._snapshot(source, target, progress, read_only=True)

    def _snapshot(self, source: Path, target: Path, progress: Progress, *, read_only: bool) -> None:
        size = source.stat().st_size
        if source.parent.parent == self.drives_dir:
            sweep(source.parent)  # the others are read-only and have nothing to sweep
        kernel.snapshot_subvolume(source.parent, target.parent, read_only=read_only)
        progress(size, size)

    def _shared_bytes(self, path: Path, used_bytes: int) -> int | None:
        if path.name == FILE and (group := kernel.quota_group(path.parent)):
            return max(used_bytes - group[1], 0)
        return kernel.shared_bytes(path)

    def _has_quota_groups(self) -> bool:
        return kernel.has_quota_groups(self.drives_dir)

    def _seeds_of_nothing(self) -> list[Path]:
        found = []
        for seed in self.seeds_dir.iterdir():
            if not is_part(seed) and not (is_id(seed.name) and self.image_path(seed.name).exists()):
                found.append(seed)
        return found


def _ids(directory: Path, leftovers: list[Path]) -> frozenset[str]:
    """The IDs that are subvolumes with a file; whatever else is there goes to ``leftovers``."""
    leftovers += abandoned(directory)
    found = set()
    for path in directory.iterdir():
        if is_id(path.name) and kernel.is_subvolume(path) and (path / FILE).is_file():
            found.add(path.name)
        elif not is_part(path):
            leftovers.append(path)
    return frozenset(found)


def _is_seed_of(seed: Path, image: Path) -> bool:
    try:
        ours, theirs = seed.stat(), image.stat()
    except FileNotFoundError:
        return False
    return (ours.st_size, ours.st_mtime_ns) == (theirs.st_size, theirs.st_mtime_ns)


@contextlib.contextmanager
def _part_subvolume(path: Path) -> Iterator[Path]:
    """A temporary subvolume beside ``path``, locked; gone afterwards unless it was renamed."""
    part, lock = locked_directory(path, kernel.create_subvolume)
    try:
        _pad(part)
        yield part
    finally:
        os.close(lock)
        _destroy(part)


def _pad(subvolume: Path) -> None:
    """Fill the first leaf of a new subvolume's tree, so that the tree has more than one.

    A copy of a tree counts one more reference to all that its root node names. Where the root is
    the only leaf, those are the file's extents, and the thousandth copy takes 20 times as long as
    the first: the lists of references grow. Else they are a few leaves, whatever the file is.
    """
    os.setxattr(subvolume, _PADDING, bytes(kernel.node_size(subvolume) - _NOT_PADDING))


@contextlib.contextmanager
def _new_subvolume(path: Path) -> Iterator[Path]:
    """A subvolume to fill; becomes ``path`` when the block ends well, else nothing stays."""
    with _part_subvolume(path) as part:
        yield part
        sync_directory(part)
        part.rename(path)
        sync_directory(path.parent)


def _destroy(path: Path) -> None:
    """Remove a subvolume, if it is there."""
    with system_errors():
        try:
            kernel.destroy_subvolume(path)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise


def _remove(path: Path) -> None:
    """Remove whatever is there."""
    if not os.path.lexists(path):
        return
    if kernel.is_subvolume(path):
        _destroy(path)
    elif path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _try_subvolumes(directory: Path) -> None:
    with _part_subvolume(directory / "probe") as part:
        copy = part_name(directory / "probe")
        kernel.snapshot_subvolume(part, copy)
        _destroy(copy)

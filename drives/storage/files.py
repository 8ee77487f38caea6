"""The layout that copies and reflinks share: one file each.

<data_dir>/drives/<drive>.img           a VM writes to it
<data_dir>/drives/snapshots/<id>.img    read-only
"""

from __future__ import annotations

import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from drives.storage.base import READ_ONLY, READ_WRITE, Inventory, Storage, checked, is_id
from images.files import (
    Progress,
    abandoned,
    is_part,
    sweep,
    sync_directory,
    system_errors,
    whole_file,
)

SUFFIX = ".img"


class FileStorage(Storage):
    """Everything but how a file becomes a copy of another."""

    def drive_path(self, drive_id: str) -> Path:
        return self.drives_dir / f"{checked(drive_id)}{SUFFIX}"

    def snapshot_path(self, snapshot_id: str) -> Path:
        return self.snapshots_dir / f"{checked(snapshot_id)}{SUFFIX}"

    def receive(self, drive_id: str) -> AbstractContextManager[Path]:
        return whole_file(self.drive_path(drive_id), READ_WRITE)

    def delete(self, drive_id: str) -> None:
        _unlink(self.drive_path(drive_id))

    def delete_snapshot(self, snapshot_id: str) -> None:
        _unlink(self.snapshot_path(snapshot_id))

    def inventory(self) -> Inventory:
        leftovers: list[Path] = []
        drives = _ids(self.drives_dir, leftovers)
        snapshots = _ids(self.snapshots_dir, leftovers)
        leftovers.remove(self.snapshots_dir)
        return Inventory(drives, snapshots, tuple(leftovers))

    def sweep(self) -> list[Path]:
        with system_errors():
            return [removed for directory in self._directories for removed in sweep(directory)]

    def remove(self, leftover: Path) -> None:
        self._require_leftover(leftover)
        with system_errors():
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink(missing_ok=True)

    def _seed(self, image_id: str, progress: Progress) -> Path:
        return self.image_path(image_id)

    def _clone(self, source: Path, drive_id: str, progress: Progress) -> None:
        with whole_file(self.drive_path(drive_id), READ_WRITE) as temporary:
            self._copy(source, temporary, progress)

    def _keep(self, source: Path, snapshot_id: str, progress: Progress) -> None:
        with whole_file(self.snapshot_path(snapshot_id), READ_ONLY) as temporary:
            self._copy(source, temporary, progress)


def _ids(directory: Path, leftovers: list[Path]) -> frozenset[str]:
    """The IDs that have a file in ``directory``; whatever else is there goes to ``leftovers``."""
    leftovers += abandoned(directory)
    found = set()
    for path in directory.iterdir():
        if path.suffix == SUFFIX and is_id(path.stem) and path.is_file():
            found.add(path.stem)
        elif not is_part(path):
            leftovers.append(path)
    return frozenset(found)


def _unlink(path: Path) -> None:
    with system_errors():
        path.unlink(missing_ok=True)
        sync_directory(path.parent)

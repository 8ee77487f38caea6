"""The backend for file systems whose files can share blocks: XFS, btrfs, bcachefs and others.

A clone is one call of the kernel (FICLONE), whatever its size; blocks are copied when they are
written to.
"""

from __future__ import annotations

from pathlib import Path

from drives.storage import kernel, pool
from drives.storage.base import Probe
from drives.storage.files import FileStorage
from images.files import Progress, copy_sparse, scratch_directory
from nexus_site.core.errors import NexusError, as_nexus_error


class ReflinkStorage(FileStorage):
    """Shares blocks; copies only what lies on another file system."""

    name = "reflink"

    @classmethod
    def probe(cls, data_dir: Path) -> Probe:
        """Share a file's block with another one."""
        try:
            directory = cls(data_dir).drives_dir
            with scratch_directory(directory) as scratch:
                (scratch / "one").write_bytes(bytes(4096))
                (scratch / "two").touch()
                shared = kernel.share_all(scratch / "one", scratch / "two")
        except (NexusError, OSError) as error:
            return Probe(cls.name, usable=False, problem=as_nexus_error(error).text)
        problem = f"Files on {pool.file_system_of(directory)} cannot share blocks."
        return Probe(cls.name, shared, "" if shared else problem)

    def _copy(self, source: Path, target: Path, progress: Progress) -> None:
        copy_shared(source, target, progress)

    def _shared_bytes(self, path: Path, used_bytes: int) -> int | None:
        return kernel.shared_bytes(path)


def copy_shared(source: Path, target: Path, progress: Progress) -> None:
    """Make ``target`` (an empty file) equal to ``source``, sharing blocks where that can be."""
    if not kernel.share_all(source, target):
        copy_sparse(source, target, progress)
        return
    size = source.stat().st_size
    progress(size, size)

"""The backend for every file system: sparse copies.

Costs the time and space of the data, not of the drive's size. A copy has to be on the disk in the
end, so it goes there straight from where the kernel keeps the source (O_DIRECT): writing it to
memory first would be half of the time. Where that cannot be, the kernel copies as it does else.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from drives.storage.base import READ_WRITE, Probe, require
from drives.storage.files import FileStorage
from images.files import (
    Progress,
    copy_ranges,
    copy_sparse,
    data_ranges,
    no_progress,
    scratch_directory,
    sync_directory,
    system_errors,
)
from nexus_site.core.errors import Conflict, NexusError

_BLOCK = 4096  # what disks want direct writes to be aligned to
_STEP = 8 << 20
# What the kernel answers where it cannot: EFAULT if the source is read no further (it became
# shorter, or its disk is bad; copying otherwise will tell).
_NOT_DIRECT = frozenset({errno.EINVAL, errno.EOPNOTSUPP, errno.EFAULT, errno.ENODEV})


class CopyStorage(FileStorage):
    """Copies the data and leaves the holes."""

    name = "copy"

    @classmethod
    def probe(cls, data_dir: Path) -> Probe:
        """Works wherever this user may write."""
        try:
            with scratch_directory(cls(data_dir).drives_dir):
                return Probe(cls.name, usable=True)
        except NexusError as error:
            return Probe(cls.name, usable=False, problem=error.text)

    def _copy(self, source: Path, target: Path, progress: Progress) -> None:
        size = source.stat().st_size
        if not _copy_direct(source, target, progress):
            copy_sparse(source, target, progress)
        if source.stat().st_size != size:
            raise Conflict(f"{source.name} changed its size while it was copied.")

    def begin_clone(
        self, snapshot_id: str, drive_id: str, changes: Sequence[tuple[int, int]] | None = None
    ) -> Callable[[], object]:
        """Copies in a thread, which mostly waits for the disk."""
        source, target = self.snapshot_path(snapshot_id), self.drive_path(drive_id)
        require(source)
        with system_errors():
            size = source.stat().st_size
            if changes is not None and target.exists() and target.stat().st_size == size:
                copy = partial(copy_ranges, source, target, changes)
            else:
                target.unlink(missing_ok=True)
                target.touch(READ_WRITE, exist_ok=False)
                os.truncate(target, size)
                copy = partial(self._copy, source, target, no_progress)
        copying = ThreadPoolExecutor(1, "copy")
        whole = copying.submit(self._fill, target, copy)
        copying.shutdown(wait=False)
        return whole.result

    def _fill(self, target: Path, copy: Callable[[], None]) -> None:
        try:
            with system_errors(), target.open("rb") as filled:
                copy()
                os.fsync(filled.fileno())
                sync_directory(target.parent)
        except BaseException:
            target.unlink(missing_ok=True)
            raise

    def _shared_bytes(self, path: Path, used_bytes: int) -> int | None:
        return 0


def _copy_direct(source: Path, target: Path, progress: Progress) -> bool:
    """Make ``target`` (an empty file) equal to ``source``; False where it has to be done else."""
    size = source.stat().st_size
    if not size or size % _BLOCK:
        return False
    try:
        writer = os.open(target, os.O_WRONLY | os.O_DIRECT | os.O_CLOEXEC)
    except OSError as error:
        return _unless_not_direct(error)
    try:
        os.ftruncate(writer, size)
        with (
            source.open("rb") as reader,
            mmap.mmap(reader.fileno(), size, access=mmap.ACCESS_READ) as mapped,
            memoryview(mapped) as data,  # read by the kernel alone: no fault can end this process
        ):
            for start, end in data_ranges(reader.fileno(), size):
                _write(writer, data, start, end, progress)
    except OSError as error:
        return _unless_not_direct(error)
    finally:
        os.close(writer)
    progress(size, size)
    return True


def _write(writer: int, data: memoryview, start: int, end: int, progress: Progress) -> None:
    """Write whole blocks around ``data[start:end]`` to their place."""
    start, end = start // _BLOCK * _BLOCK, -(-end // _BLOCK) * _BLOCK
    while start < end:
        with data[start : min(start + _STEP, end)] as piece:
            start += os.pwrite(writer, piece, start)
        progress(start, len(data))


def _unless_not_direct(error: OSError) -> bool:
    if error.errno not in _NOT_DIRECT:
        raise error
    return False

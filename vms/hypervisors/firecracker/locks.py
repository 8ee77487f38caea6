"""A disk that a VM writes is no other VM's: locks on disk images, as QEMU takes them.

Firecracker itself takes none. QEMU's lie on single bytes from 100 on, by what is done and what
is not shared; a lock on them all excludes every one of them, so a disk is safe between the two.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from nexus_site.core.errors import Conflict
from vms.hypervisors.base import Disk

FIRST_BYTE, BYTES = 100, 200


@contextmanager
def locked(disks: Sequence[Disk]) -> Iterator[list[int]]:
    """Open files that lock the writable disks as long as anybody has them open.

    Closed here when the block ends, but not in the programs that have inherited them. Raises
    Conflict (code "disk-in-use") when another VM has a disk.
    """
    files: list[int] = []
    try:
        for disk in disks:
            if not disk.read_only:
                files.append(os.open(disk.path, os.O_RDWR | os.O_CLOEXEC))
                _lock(files[-1], disk)
        yield files
    finally:
        for file in files:
            os.close(file)


def _lock(file: int, disk: Disk) -> None:
    # struct flock: the type, whence, start and length, and a pid that must be 0. Such a lock
    # belongs to the open file and not, as the older ones do, to a process.
    lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, FIRST_BYTE, BYTES, 0)
    try:
        fcntl.fcntl(file, fcntl.F_OFD_SETLK, lock)
    except BlockingIOError:
        raise Conflict(
            f"The disk {disk.name} is locked: another VM uses it.",
            detail=str(disk.path),
            code="disk-in-use",
        ) from None

"""What storage asks the kernel for by ioctl.

Python's fcntl copies what it is given into a buffer of 1,024 bytes; longer arguments must be
mutable, and are changed in place.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

# linux/fs.h
_FICLONE = 0x40049409
# linux/fiemap.h
_FIEMAP = 0xC020660B
_EXTENT_LAST, _EXTENT_SHARED = 0x1, 0x2000
_HEAD, _EXTENT = struct.Struct("=QQLLLL"), struct.Struct("=QQQQQLLLL")
_EXTENTS = 512  # asked for at once
# linux/btrfs.h
_SNAP_CREATE_V2, _SUBVOL_CREATE_V2 = 0x50009417, 0x50009418
_SNAP_DESTROY = 0x5000940F
_INO_LOOKUP, _FS_INFO = 0xD0009412, 0x8400941F
_READ_ONLY = 2
_ARGUMENTS_V2 = struct.Struct("=qQQ32s4040s")  # file, -, flags, -, name
_ARGUMENTS = struct.Struct("=q4088s")  # file, name
_FIRST_INODE = 256  # of every subvolume

_CANNOT_SHARE = frozenset({errno.EXDEV, errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL})


def share_all(source: Path, target: Path) -> bool:
    """Make ``target`` (an existing file) equal to ``source`` by sharing its blocks.

    False where the kernel cannot for these two; nothing is changed then.
    """
    with source.open("rb") as reader, target.open("r+b") as writer:
        try:
            fcntl.ioctl(writer.fileno(), _FICLONE, reader.fileno())
        except OSError as error:
            if error.errno in _CANNOT_SHARE:
                return False
            raise
    return True


def shared_bytes(path: Path) -> int | None:
    """How much of a file's data is in blocks that other files have too; None if unknown."""
    shared = start = 0
    with path.open("rb") as file:
        while True:
            try:
                extents = _extents(file.fileno(), start)
            except OSError as error:
                if error.errno in _CANNOT_SHARE:
                    return None
                raise
            shared += sum(length for _, length, flags in extents if flags & _EXTENT_SHARED)
            if not extents or extents[-1][2] & _EXTENT_LAST:
                return shared
            start = extents[-1][0] + extents[-1][1]


def _extents(fd: int, start: int) -> list[tuple[int, int, int]]:
    """(start, length, flags) of the next extents from ``start`` on."""
    buffer = bytearray(_HEAD.size + _EXTENTS * _EXTENT.size)
    _HEAD.pack_into(buffer, 0, start, (1 << 64) - 1 - start, 0, 0, _EXTENTS, 0)
    fcntl.ioctl(fd, _FIEMAP, buffer)
    count = _HEAD.unpack_from(buffer)[3]
    rows = (_EXTENT.unpack_from(buffer, _HEAD.size + n * _EXTENT.size) for n in range(count))
    return [(row[0], row[2], row[5]) for row in rows]


def create_subvolume(path: Path) -> None:
    """An empty btrfs subvolume, on the disk. ``OSError`` as the kernel says it."""
    with _directory(path.parent) as parent:
        _create(_SUBVOL_CREATE_V2, parent, 0, 0, path.name)


def snapshot_subvolume(source: Path, path: Path, *, read_only: bool = False) -> None:
    """A copy of a subvolume, with what is still in memory, on the disk, at once or not at all."""
    with _directory(path.parent) as parent, _directory(source) as fd:
        _create(_SNAP_CREATE_V2, parent, fd, _READ_ONLY if read_only else 0, path.name)


def destroy_subvolume(path: Path) -> None:
    """Remove a subvolume with all it holds. The kernel returns its space in the background."""
    with _directory(path.parent) as parent:
        buffer = bytearray(_ARGUMENTS.pack(0, os.fsencode(path.name)))
        fcntl.ioctl(parent, _SNAP_DESTROY, buffer)
        os.fsync(parent)


def is_subvolume(path: Path) -> bool:
    """Whether this directory, which is on btrfs, is the top of a subvolume."""
    status = path.lstat()
    return stat.S_ISDIR(status.st_mode) and status.st_ino == _FIRST_INODE


def quota_group(path: Path) -> tuple[int, int] | None:
    """(referenced, exclusive) bytes of the subvolume at ``path``; None without quota groups.

    As of the last commit; while the kernel counts anew there are none.
    """
    groups = _quota_groups(path)
    try:
        if int((groups / "inconsistent").read_text()):
            return None
        group = groups / f"0_{_subvolume_id(path)}"
        referenced, exclusive = (
            int((group / name).read_text()) for name in ("referenced", "exclusive")
        )
    except FileNotFoundError:
        return None
    return referenced, exclusive


def has_quota_groups(path: Path) -> bool:
    """Whether the btrfs that ``path`` is on counts by quota groups."""
    return _quota_groups(path).is_dir()


def node_size(path: Path) -> int:
    """Bytes in a node of the trees of the btrfs that ``path`` is on."""
    found: int = struct.unpack_from("=L", _info(path), 32)[0]
    return found


def _quota_groups(path: Path) -> Path:
    return Path("/sys/fs/btrfs", str(UUID(bytes=_info(path)[16:32])), "qgroups")


def _info(path: Path) -> bytes:
    buffer = bytearray(1024)
    with _directory(path) as fd:
        fcntl.ioctl(fd, _FS_INFO, buffer)
    return bytes(buffer)


def _subvolume_id(path: Path) -> int:
    with _directory(path) as fd:
        buffer = bytearray(struct.pack("=QQ4080x", 0, _FIRST_INODE))
        fcntl.ioctl(fd, _INO_LOOKUP, buffer)
    found: int = struct.unpack_from("=Q", buffer)[0]
    return found


def _create(request: int, parent: int, source: int, flags: int, name: str) -> None:
    arguments = _ARGUMENTS_V2.pack(source, 0, flags, b"", os.fsencode(name))
    fcntl.ioctl(parent, request, bytearray(arguments))


@contextlib.contextmanager
def _directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)

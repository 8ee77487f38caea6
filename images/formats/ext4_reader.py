"""Walk an ext4 file system on any ``Disk``: names, metadata and data, nothing mounted.

Read-only and distrustful: a damaged or hostile image ends in ``Invalid``, never in a loop, a
flood of memory or a path that leaves the tree. Checksums inside the file system are not
verified: a publisher's image is checked as a whole by its own SHA-256.

The layout is the one of the kernel's Documentation/filesystems/ext4; all of it little-endian.
"""

from __future__ import annotations

import functools
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from images.entries import DEVICES, KIND_OF_BITS, MAX_MTIME, Entry, Kind, decoded
from images.formats.disks import Disk
from images.formats.ext4_xattrs import read_xattrs
from images.trees import MAX_BYTES, MAX_ENTRIES, Item
from nexus_site.core.errors import Invalid

ROOT_INODE = 2
_LOST_AND_FOUND = b"lost+found"
_SUPERBLOCK_AT, _SUPERBLOCK_SIZE = 1024, 1024
_MAGIC = 0xEF53

# Incompatible features that change nothing for a reader of the layout below ...
_UNDERSTOOD = {
    "filetype": 0x2,
    "extents": 0x40,
    "64bit": 0x80,
    "mmp": 0x100,
    "flex_bg": 0x200,
    "ea_inode": 0x400,  # refused where an attribute really uses it
    "csum_seed": 0x2000,
    "largedir": 0x4000,
    "inline_data": 0x8000,  # refused where an inode really uses it
    "encrypt": 0x10000,  # the same
    "casefold": 0x20000,
}
_NEEDED = _UNDERSTOOD["filetype"]
_RECOVER = 0x4
_64BIT = 0x80

_EXTENTS_FLAG, _ENCRYPTED_FLAG, _INLINE_FLAG = 0x80000, 0x800, 0x10000000
_EXTENT_MAGIC = 0xF30A
_MAX_DEPTH = 5
_UNWRITTEN = 32768  # an extent longer than this is allocated, but reads as zeros
_PIECE = 1 << 20
_FAST_SYMLINK = 60


@dataclass(frozen=True, slots=True)
class Inode:
    """An inode as it is on the disk; times are nanoseconds since 1970."""

    number: int
    st_mode: int
    uid: int
    gid: int
    size: int
    links: int
    flags: int
    atime: int
    ctime: int
    mtime: int
    crtime: int
    xattr_block: int
    block: bytes  # 60 bytes: an extent tree, a short symlink's target or a device number
    extra: bytes  # what follows the fixed fields: attributes kept in the inode

    @property
    def kind(self) -> Kind:
        found = KIND_OF_BITS.get(stat.S_IFMT(self.st_mode))
        if found is None:
            raise _damaged(f"inode {self.number} is of no known type")
        return found

    @property
    def mode(self) -> int:
        return stat.S_IMODE(self.st_mode)

    @property
    def device(self) -> tuple[int, int]:
        """(major, minor) of a device; there is an old 16-bit and a new 32-bit way to store it."""
        old, new = struct.unpack_from("<II", self.block)
        if old:
            return old >> 8 & 0xFF, old & 0xFF
        return new >> 8 & 0xFFF, new & 0xFF | new >> 12 & 0xFFF00


class Ext4:
    """An ext4 file system. The disk stays the caller's to close."""

    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        if disk.size < _SUPERBLOCK_AT + _SUPERBLOCK_SIZE:
            raise _damaged("it is too small")
        raw = disk.read_at(_SUPERBLOCK_AT, _SUPERBLOCK_SIZE)
        (magic,) = struct.unpack_from("<H", raw, 0x38)
        if magic != _MAGIC:
            raise Invalid("This is not an ext4 file system.", code="image-unsupported")
        inodes, blocks, log_size = struct.unpack_from("<I I 16x I", raw, 0)
        first_block, self._per_group = struct.unpack_from("<I 16x I", raw, 0x14)
        self._inode_size, incompatible = struct.unpack_from("<H 6x I", raw, 0x58)
        _check_features(incompatible)
        wide = bool(incompatible & _64BIT)
        self._descriptor_size = struct.unpack_from("<H", raw, 0xFE)[0] if wide else 32
        if wide:
            blocks |= struct.unpack_from("<I", raw, 0x150)[0] << 32
        self.block_size = 1024 << log_size if log_size <= 6 else 0
        self._inodes, self._blocks = inodes, blocks
        self.size_bytes = blocks * self.block_size
        self._check_geometry()
        self._descriptors_at = (first_block + 1) * self.block_size
        self._read_block = functools.lru_cache(maxsize=512)(self._read_block_uncached)
        self._budget = self._names_left = 0

    def _check_geometry(self) -> None:
        if (
            not self.block_size
            or self._inode_size not in (128, 256, 512, 1024)
            or self._descriptor_size not in (32, 64)
            or not self._per_group
            or not self._inodes
        ):
            raise _damaged("its superblock contradicts itself")
        if self.size_bytes > self._disk.size:
            raise _damaged("it is larger than its disk")

    def begin(self, blocks: int) -> None:
        """Allow what follows to refer to so many blocks; ``walk`` begins by itself.

        Needed before ``names``, ``pieces`` and ``target`` outside a walk, and not during one.
        """
        self._budget, self._names_left = blocks, MAX_ENTRIES

    def walk(self) -> Iterator[tuple[str, Inode]]:
        """Every name with its inode, each directory before what it holds, in order of names.

        The root comes first, as ``""``; ``lost+found`` in the root is left out.
        """
        self.begin(min(2 * self._blocks + self._inodes, MAX_BYTES // self.block_size))
        entered = set[int]()
        todo = [(b"", ROOT_INODE)]
        while todo:
            path, number = todo.pop()
            inode = self.inode(number)
            yield decoded(path), inode
            if inode.kind is not Kind.DIRECTORY:
                continue
            if number in entered:
                raise _damaged(f"directory {number} is found in two places")
            entered.add(number)
            for name, child in sorted(self.names(inode), reverse=True):
                if path or name != _LOST_AND_FOUND:
                    todo.append((path + b"/" + name if path else name, child))

    def items(self) -> Iterator[Item]:
        """The file system as a source for ``Tree.fill``."""
        first_names: dict[int, str] = {}
        for path, inode in self.walk():
            link_to = first_names.get(inode.number)
            pieces: Iterator[tuple[int, bytes]] = iter(())
            if inode.kind is Kind.FILE and link_to is None:
                pieces = self.pieces(inode)
                if inode.links > 1:
                    first_names[inode.number] = path
            yield Item(self.entry(path, inode), pieces, link_to)

    def inode(self, number: int) -> Inode:
        """Read one inode; ``Invalid`` where there is none of that number."""
        if not 1 <= number <= self._inodes:
            raise _damaged(f"there is no inode {number}")
        group, index = divmod(number - 1, self._per_group)
        at = self._inode_table(group) * self.block_size + index * self._inode_size
        block, offset = divmod(at, self.block_size)
        if offset + self._inode_size > self.block_size:
            raise _damaged("an inode lies across two blocks")
        return _parse_inode(number, self._read_block(block)[offset : offset + self._inode_size])

    def xattrs(self, inode: Inode) -> dict[str, bytes]:
        """The extended attributes of an inode, values as ``getxattr`` gives them."""
        block = self._read_block(inode.xattr_block) if inode.xattr_block else b""
        return read_xattrs(inode.extra, block)

    def pieces(self, inode: Inode) -> Iterator[tuple[int, bytes]]:
        """The data of an inode as (offset, bytes); holes are left out."""
        for logical, physical, count in self._extents(inode):
            offset, position = logical * self.block_size, physical * self.block_size
            end = min(offset + count * self.block_size, inode.size)
            while offset < end:
                data = self._disk.read_at(position, min(_PIECE, end - offset))
                yield offset, data
                offset, position = offset + len(data), position + len(data)

    def target(self, inode: Inode) -> bytes:
        """Where a symbolic link points."""
        if inode.size < _FAST_SYMLINK and not inode.flags & _EXTENTS_FLAG:
            return inode.block[: inode.size]
        if inode.size > self.block_size:
            raise _damaged(f"the symbolic link {inode.number} is too long")
        return b"".join(data for _, data in self.pieces(inode))

    def entry(self, path: str, inode: Inode) -> Entry:
        """What is known of an inode as the entry of a tree; its data are ``pieces``."""
        kind = inode.kind
        return Entry(
            path,
            kind,
            inode.mode,
            inode.uid,
            inode.gid,
            mtime=min(max(inode.mtime // 10**9, 0), MAX_MTIME),
            size=inode.size if kind is Kind.FILE else 0,
            target=decoded(self.target(inode)) if kind is Kind.SYMLINK else "",
            device=inode.device if kind in DEVICES else (0, 0),
            xattrs=self.xattrs(inode),
        )

    def _inode_table(self, group: int) -> int:
        block, offset = divmod(
            self._descriptors_at + group * self._descriptor_size, self.block_size
        )
        descriptor = self._read_block(block)[offset : offset + self._descriptor_size]
        (low,) = struct.unpack_from("<I", descriptor, 8)
        high = struct.unpack_from("<I", descriptor, 0x28)[0] if len(descriptor) == 64 else 0
        return int(low | high << 32)

    def names(self, directory: Inode) -> Iterator[tuple[bytes, int]]:
        """The names in one directory with their inodes' numbers, without ``.`` and ``..``."""
        # Index blocks look like empty ones, so all are read.
        for _, data in self.pieces(directory):
            for start in range(0, len(data), self.block_size):
                for found in _parse_directory_block(data[start : start + self.block_size]):
                    self._names_left -= 1
                    if self._names_left < 0:
                        raise _damaged(f"it has more than {MAX_ENTRIES} names")
                    yield found

    def _extents(self, inode: Inode) -> Iterator[tuple[int, int, int]]:
        """(logical block, physical block, count) of an inode's written data, in order."""
        if inode.flags & (_ENCRYPTED_FLAG | _INLINE_FLAG):
            raise _unsupported("a file is encrypted or kept inside its inode (inline_data)")
        if not inode.flags & _EXTENTS_FLAG:
            if any(inode.block):
                raise _unsupported("a file has a block map, as ext2 and ext3 wrote them")
            return
        behind = 0
        for logical, physical, length in self._extent_leaves(inode.block, None):
            written = length <= _UNWRITTEN
            count = length if written else length - _UNWRITTEN
            if logical < behind or not count:
                raise _damaged(f"the extents of inode {inode.number} overlap")
            behind = logical + count
            self._spend(1 + (count if written else 0))
            if written:
                yield logical, physical, count

    def _extent_leaves(self, node: bytes, expected: int | None) -> Iterator[tuple[int, int, int]]:
        """The leaf entries below a node of an extent tree."""
        self._spend(1)
        magic, entries, _, depth = struct.unpack_from("<HHHH", node)
        if (
            magic != _EXTENT_MAGIC
            or depth > _MAX_DEPTH
            or expected not in (None, depth)
            or 12 + entries * 12 > len(node)
        ):
            raise _damaged("an extent tree makes no sense")
        for at in range(12, 12 + entries * 12, 12):
            if depth:
                _, low, high = struct.unpack_from("<IIH", node, at)
                yield from self._extent_leaves(self._read_block(low | high << 32), depth - 1)
            else:
                logical, length, high, low = struct.unpack_from("<IHHI", node, at)
                yield logical, low | high << 32, length

    def _spend(self, blocks: int) -> None:
        """No honest file system refers to more blocks than it has: a bomb ends here."""
        self._budget -= blocks
        if self._budget < 0:
            raise _damaged("its files claim more blocks than it has")

    def _read_block_uncached(self, number: int) -> bytes:
        return self._disk.read_at(number * self.block_size, self.block_size)


def _check_features(incompatible: int) -> None:
    if incompatible & _RECOVER:
        raise Invalid(
            "The ext4 file system was not unmounted cleanly: its journal holds changes.",
            hint="Run e2fsck -p on the image, then try again.",
            code="image-unclean",
        )
    unknown = incompatible & ~sum(_UNDERSTOOD.values())
    if unknown:
        raise _unsupported(f"it has the unknown features {unknown:#x}")
    if not incompatible & _NEEDED:
        raise _unsupported("it is older than ext4 (no filetype feature)")


def _parse_inode(number: int, raw: bytes) -> Inode:
    mode, uid, size, atime, ctime, mtime, _, gid, links = struct.unpack_from("<HHIIIIIHH", raw)
    (flags,) = struct.unpack_from("<I", raw, 0x20)
    xattrs, size_high = struct.unpack_from("<II", raw, 0x68)
    xattrs_high, uid_high, gid_high = struct.unpack_from("<HHH", raw, 0x76)
    extra_size = struct.unpack_from("<H", raw, 0x80)[0] if len(raw) > 128 else 0
    if 128 + extra_size > len(raw):
        raise _damaged(f"inode {number} is larger than it can be")
    fields = raw[128 : 128 + extra_size].ljust(32, b"\0")  # a short inode has no fine times
    ctime_extra, mtime_extra, atime_extra, crtime, crtime_extra = struct.unpack_from(
        "<5I", fields, 4
    )
    return Inode(
        number,
        mode,
        uid | uid_high << 16,
        gid | gid_high << 16,
        size | size_high << 32,
        links,
        flags,
        _time(atime, atime_extra),
        _time(ctime, ctime_extra),
        _time(mtime, mtime_extra),
        _time(crtime, crtime_extra),
        xattrs | xattrs_high << 32,
        raw[0x28:0x64],
        raw[128 + extra_size :],
    )


def _time(seconds: int, extra: int) -> int:
    """Signed 32-bit seconds, two more bits of them and nanoseconds, as one number."""
    signed = seconds - (1 << 32) if seconds >> 31 else seconds
    return (signed + ((extra & 3) << 32)) * 10**9 + (extra >> 2)


def _parse_directory_block(block: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + 8 <= len(block):
        number, length, name_length = struct.unpack_from("<IHB", block, at)
        if length in (0, 0xFFFF) and len(block) == 1 << 16:
            length = len(block)  # which does not fit in the field
        if length < 8 or length % 4 or at + length > len(block) or name_length > length - 8:
            raise _damaged("a directory entry makes no sense")
        name = block[at + 8 : at + 8 + name_length]
        if number and name not in (b".", b".."):
            if not name or b"/" in name or b"\0" in name:
                raise _damaged("a directory entry has an impossible name")
            yield name, number
        at += length


def _damaged(reason: str) -> Invalid:
    return Invalid(
        f"The ext4 file system is damaged: {reason}.",
        hint="Fetch the image again and compare its checksum.",
        code="image-damaged",
    )


def _unsupported(reason: str) -> Invalid:
    return Invalid(
        f"The ext4 file system cannot be read: {reason}.",
        hint="Write it anew with mke2fs -t ext4 -d, or use another image.",
        code="image-unsupported",
    )

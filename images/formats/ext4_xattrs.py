"""Extended attributes of ext4 inodes, from both places where they are kept."""

from __future__ import annotations

import struct

from images.entries import decoded
from nexus_site.core.errors import Invalid

_MAGIC = 0xEA020000
_BLOCK_HEADER = 32
_ENTRY = struct.Struct("<BBHIII")  # name length, name index, value offset, inode, size, hash

# ext4 stores a number in place of the beginning of a name.
_PREFIXES = {
    1: "user.",
    2: "system.posix_acl_access",
    3: "system.posix_acl_default",
    4: "trusted.",
    6: "security.",
}
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")
_ACL_ON_DISK, _ACL_IN_XATTR = 1, 2
_NAMED_TAGS = (0x02, 0x08)  # a user, a group: only these say which one
_NOBODY = 0xFFFFFFFF


def read_xattrs(in_inode: bytes, block: bytes) -> dict[str, bytes]:
    """The attributes in the rest of an inode and in its attribute block (both may be empty)."""
    found: dict[str, bytes] = {}
    if len(in_inode) >= 8 and struct.unpack_from("<I", in_inode)[0] == _MAGIC:
        area = in_inode[4:]
        found |= _entries(area, area)
    if block:
        if struct.unpack_from("<I", block)[0] != _MAGIC:
            raise _damaged()
        found |= _entries(block[_BLOCK_HEADER:], block)
    return {name: _acl_to_xattr(value) if name in _ACLS else value for name, value in found.items()}


def _entries(table: bytes, values: bytes) -> dict[str, bytes]:
    """Parse the entries of ``table``; their value offsets count from the start of ``values``."""
    found: dict[str, bytes] = {}
    at = 0
    while at + 4 <= len(table) and table[at : at + 4] != b"\0\0\0\0":
        if at + _ENTRY.size > len(table):
            raise _damaged()
        name_length, index, offset, inode, size, _ = _ENTRY.unpack_from(table, at)
        name = table[at + _ENTRY.size : at + _ENTRY.size + name_length]
        if inode or index not in _PREFIXES:
            raise Invalid(
                "The ext4 file system keeps an extended attribute in a way unknown here.",
                code="image-unsupported",
            )
        if len(name) < name_length or offset + size > len(values):
            raise _damaged()
        found[_PREFIXES[index] + decoded(name)] = values[offset : offset + size]
        at += (_ENTRY.size + name_length + 3) & ~3
    return found


def _acl_to_xattr(stored: bytes) -> bytes:
    """An access list as ``getxattr`` gives it: on the disk its unnamed entries have no id."""
    if len(stored) < 4 or struct.unpack_from("<I", stored)[0] != _ACL_ON_DISK:
        raise _damaged()
    parts = [struct.pack("<I", _ACL_IN_XATTR)]
    at = 4
    while at + 4 <= len(stored):
        tag, permissions = struct.unpack_from("<HH", stored, at)
        at += 4
        who = _NOBODY
        if tag in _NAMED_TAGS:
            if at + 4 > len(stored):
                raise _damaged()
            (who,) = struct.unpack_from("<I", stored, at)
            at += 4
        parts.append(struct.pack("<HHI", tag, permissions, who))
    return b"".join(parts)


def _damaged() -> Invalid:
    return Invalid(
        "The ext4 file system is damaged: extended attributes make no sense.",
        code="image-damaged",
    )

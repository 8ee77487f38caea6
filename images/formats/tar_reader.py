"""Read a tar archive as a stream of items, in constant memory.

Understood are ustar, GNU (long names, sparse files) and PAX with extended attributes. Names are
bytes: nothing is lost that is not UTF-8. Leading slashes are dropped, as tar does; what cannot
be kept harmlessly is refused: ``unsafe-entry`` names the entry, ``archive-damaged`` says what
makes no sense. Nothing here touches a file system.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import unquote_to_bytes

from images.entries import DEVICES, MAX_MTIME, Entry, Kind, decoded, normal_path
from images.formats import tar_sparse
from images.formats.compression import Readable, damaged, too_large
from images.trees import Item
from nexus_site.core.errors import Invalid

BLOCK = 512
MAX_EXTENSION = 1 << 20  # bytes of one entry's long name or PAX records
_MAX_EXTENSIONS = 8  # headers before one entry
_PIECE = 1 << 20
_SKIP = 1 << 20

_FIELDS = struct.Struct("100s 8s 8s 8s 12s 12s 8s c 100s 8s 64x 8s 8s 155s 12x")
_USTAR = b"ustar\0"

_KINDS = {
    b"0": Kind.FILE,
    b"\0": Kind.FILE,
    b"7": Kind.FILE,
    b"S": Kind.FILE,
    b"2": Kind.SYMLINK,
    b"3": Kind.CHARACTER_DEVICE,
    b"4": Kind.BLOCK_DEVICE,
    b"5": Kind.DIRECTORY,
    b"D": Kind.DIRECTORY,
    b"6": Kind.FIFO,
}
_LINK, _OLD_SPARSE = b"1", b"S"
_WITH_DATA = frozenset({b"0", b"\0", b"7", b"S", b"D"})
_LONG_NAME, _LONG_LINK, _GLOBAL = b"L", b"K", b"g"
_EXTENSIONS = frozenset({_LONG_NAME, _LONG_LINK, _GLOBAL, b"x", b"X"})
_VOLUME = b"V"  # a label of the archive
_MEANT_FOR_ALL = frozenset({b"uid", b"gid", b"mtime"})  # what a global header may say

_XATTR, _XATTR_BASE64 = b"SCHILY.xattr.", b"LIBARCHIVE.xattr."
_KEPT_XATTRS = ("user.", "trusted.", "security.")
_ACLS = ("system.posix_acl_access", "system.posix_acl_default")

Records = dict[bytes, bytes]


@dataclass(frozen=True, slots=True)
class _Header:
    """The fields of one header block."""

    raw: bytes
    name: bytes
    mode: int
    uid: int
    gid: int
    size: int
    mtime: int
    type: bytes
    link: bytes
    device: tuple[int, int]


class TarArchive:
    """The items of an archive, once, in its order. Each item's pieces come before the next item.

    ``offset`` is where the data of the last item begins in ``stream``, ``name`` how the archive
    writes its path, ``parts`` where its data belongs: offsets and lengths. ``complete`` asks for
    the mark at the end, so that a truncated archive is noticed; without it the end of the stream
    may come between two entries.
    """

    def __init__(self, stream: Readable, *, complete: bool = True) -> None:
        self._stream, self._complete = stream, complete
        self._left = 0  # bytes of the present item's data
        self.offset = 0
        self.name = b""
        self.parts: Sequence[tuple[int, int]] = ()

    def __iter__(self) -> Iterator[Item]:
        for_all: Records = {}
        records: Records = {}
        extensions = 0
        while header := self._next_header():
            if header.type in _EXTENSIONS:
                extensions += 1
                if extensions > _MAX_EXTENSIONS:
                    raise damaged("an entry has too many headers")
                found = self._extension(header)
                if header.type == _GLOBAL:
                    for_all |= {key: found[key] for key in _MEANT_FOR_ALL & found.keys()}
                else:
                    records |= found
                continue
            if header.type != _VOLUME:
                yield self._item(header, for_all | records)
                self._skip(self._left)
            records, extensions = {}, 0

    def _next_header(self) -> _Header | None:
        raw = self._stream.read(BLOCK)
        self.offset += len(raw)
        if not raw and not self._complete:
            return None
        if len(raw) < BLOCK:
            raise damaged("it ends too soon")
        return _parse(raw) if any(raw) else None

    def _extension(self, header: _Header) -> Records:
        """What a header says about the entry that follows it."""
        if header.size > MAX_EXTENSION:
            raise too_large(f"a name or attribute in it has {header.size} bytes")
        data = self._exactly(header.size)
        self._skip(-header.size % BLOCK)
        if header.type == _LONG_NAME:
            return {b"path": data.partition(b"\0")[0]}
        if header.type == _LONG_LINK:
            return {b"linkpath": data.partition(b"\0")[0]}
        return _pax_records(data)

    def _item(self, header: _Header, records: Records) -> Item:
        name = records.get(b"GNU.sparse.name") or records.get(b"path") or header.name
        kind, path = _kind(header, name), normal_path(decoded(name))
        size = _number(records, b"size", header.size)
        self._left = size + -size % BLOCK if header.type in _WITH_DATA else 0
        link = records.get(b"linkpath") or header.link
        pieces: Iterator[tuple[int, bytes]] = iter(())
        self.name, self.parts = name, ()
        if kind is Kind.FILE and header.type != _LINK:
            size, self.parts = self._layout(header, records, size)
            pieces = self._pieces(self.parts)
        entry = Entry(
            path,
            kind,
            header.mode & 0o7777,
            _number(records, b"uid", header.uid),
            _number(records, b"gid", header.gid),
            mtime=_mtime(records, header.mtime),
            size=size if kind is Kind.FILE and header.type != _LINK else 0,
            target=decoded(link) if kind is Kind.SYMLINK else "",
            device=header.device if kind in DEVICES else (0, 0),
            xattrs=_xattrs(records),
        )
        return Item(entry, pieces, normal_path(decoded(link)) if header.type == _LINK else None)

    def _layout(
        self, header: _Header, records: Records, size: int
    ) -> tuple[int, Sequence[tuple[int, int]]]:
        """The size of a file, and the parts of it that are in the archive."""
        if header.type == _OLD_SPARSE:
            numbers, real_size = tar_sparse.old_gnu(header.raw, _numeric, self._exactly)
            return real_size, tar_sparse.pairs(numbers, real_size, size)
        if records.get(b"GNU.sparse.major") == b"1":
            real_size = _number(records, b"GNU.sparse.realsize", size)
            numbers, taken = tar_sparse.before_data(size, self._exactly)
            self._left -= taken
            return real_size, tar_sparse.pairs(numbers, real_size, size - taken)
        if b"GNU.sparse.map" in records:
            real_size = _number(records, b"GNU.sparse.size", size)
            return real_size, tar_sparse.pairs(tar_sparse.from_records(records), real_size, size)
        return size, [(0, size)]

    def _pieces(self, parts: Sequence[tuple[int, int]]) -> Iterator[tuple[int, bytes]]:
        for offset, length in parts:
            while length:
                data = self._exactly(min(length, _PIECE))
                self._left -= len(data)
                yield offset, data
                offset, length = offset + len(data), length - len(data)

    def _exactly(self, size: int) -> bytes:
        data = self._stream.read(size)
        if len(data) < size:
            raise damaged("it ends too soon")
        self.offset += size
        return data

    def _skip(self, size: int) -> None:
        """Go on without reading, where the stream is a file; else by reading."""
        if isinstance(self._stream, io.BufferedReader) and size > _SKIP:
            if os.fstat(self._stream.fileno()).st_size < self._stream.tell() + size:
                raise damaged("it ends too soon")
            self._stream.seek(size, os.SEEK_CUR)
            self.offset += size
            return
        while size:
            size -= len(self._exactly(min(size, _SKIP)))


def is_header(raw: bytes) -> bool:
    """Whether a block can be the first of a tar archive."""
    try:
        return len(raw) == BLOCK and _parse(raw) is not None
    except Invalid:
        return False


def _parse(raw: bytes) -> _Header:
    (name, mode, uid, gid, size, mtime, checksum, type_, link, magic, major, minor, prefix) = (
        _FIELDS.unpack(raw)
    )
    if _numeric(checksum) not in _checksums(raw):
        raise damaged("the checksum of a header is wrong")
    name = name.partition(b"\0")[0]
    prefix = prefix.partition(b"\0")[0]
    if prefix and magic.startswith(_USTAR):
        name = prefix + b"/" + name
    bytes_of_data = _numeric(size)
    if bytes_of_data < 0:
        raise damaged("an entry has a negative size")
    device = (0, 0)
    if type_ in (b"3", b"4"):
        device = (_numeric(major), _numeric(minor))
    return _Header(
        raw,
        name,
        _numeric(mode),
        _numeric(uid),
        _numeric(gid),
        bytes_of_data,
        _numeric(mtime),
        type_,
        link.partition(b"\0")[0],
        device,
    )


def _checksums(raw: bytes) -> tuple[int, int]:
    """The sum of a header's bytes; some old programs took them for signed ones."""
    blank = raw[:148] + b" " * 8 + raw[156:]
    unsigned = sum(blank)
    return unsigned, unsigned - 256 * (0 if blank.isascii() else sum(byte > 127 for byte in blank))


def _numeric(field: bytes) -> int:
    """A number in octal digits, or (its first bit set) in binary."""
    if field[0] & 0x80:
        value = int.from_bytes(field, "big")
        bits = len(field) * 8
        return value - (1 << bits) if field[0] & 0x40 else value - (1 << (bits - 1))
    text = field.partition(b"\0")[0].strip()
    try:
        return int(text, 8) if text else 0
    except ValueError as error:
        raise damaged(f"{text!r} stands in place of a number") from error


def _kind(header: _Header, name: bytes) -> Kind:
    if header.type == _LINK:
        return Kind.FILE
    kind = _KINDS.get(header.type)
    if kind is None:
        raise Invalid(
            f"The archive has the entry {name!r} of the unknown type {header.type!r}.",
            hint="Write it anew with tar --format=pax.",
            code="archive-unsupported",
        )
    if kind is Kind.FILE and name.endswith(b"/") and header.type in (b"0", b"\0"):
        return Kind.DIRECTORY  # as it was before there were types
    return kind


def _pax_records(data: bytes) -> Records:
    """``LENGTH KEY=VALUE`` lines; the length counts all of the line."""
    records: Records = {}
    sparse: list[bytes] = []
    at = 0
    while at < len(data) and data[at]:
        digits, space, _ = data[at : at + 12].partition(b" ")
        end = at + (int(digits) if digits.isdigit() and space else 0)
        if end <= at + len(digits) + 2 or end > len(data) or data[end - 1 : end] != b"\n":
            raise damaged("a PAX header makes no sense")
        key, equals, value = data[at + len(digits) + 1 : end - 1].partition(b"=")
        if not equals or not key:
            raise damaged("a PAX header makes no sense")
        if key in (b"GNU.sparse.offset", b"GNU.sparse.numbytes"):
            sparse.append(value)
        else:
            records[key] = value
        at = end
    if sparse:
        records[b"GNU.sparse.map"] = b",".join(sparse)
    return records


def _number(records: Mapping[bytes, bytes], key: bytes, otherwise: int) -> int:
    value = records.get(key)
    return tar_sparse.integer(value) if value else otherwise


def _mtime(records: Mapping[bytes, bytes], otherwise: int) -> int:
    """Whole seconds, moved into what every tool can write."""
    value = records.get(b"mtime")
    try:
        seconds = math.floor(float(value)) if value else otherwise
    except (ValueError, OverflowError) as error:
        raise damaged(f"{value!r} stands in place of a time") from error
    return min(max(seconds, 0), MAX_MTIME)


def _xattrs(records: Mapping[bytes, bytes]) -> dict[str, bytes]:
    """The extended attributes that Linux knows; those of other systems are left out."""
    found: dict[str, bytes] = {}
    for key, value in records.items():
        if key.startswith(_XATTR_BASE64):
            name = decoded(unquote_to_bytes(key.removeprefix(_XATTR_BASE64)))
            value = _from_base64(value)
        elif key.startswith(_XATTR):
            raw = key.removeprefix(_XATTR)
            name = decoded(raw.replace(b"%3D", b"=").replace(b"%25", b"%"))  # as GNU tar writes
        else:
            continue
        if name.startswith(_KEPT_XATTRS) or name in _ACLS:
            found.setdefault(name, value)
    return found


def _from_base64(value: bytes) -> bytes:
    try:
        return base64.b64decode(value + b"=" * (-len(value) % 4), validate=True)
    except binascii.Error as error:
        raise damaged("an extended attribute is not in base64") from error

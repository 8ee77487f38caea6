"""An image as something to take away: a tar archive of its files, or its compressed disk.

Both are streams made in constant memory, and the same image gives the same bytes.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from backports.zstd import CompressionParameter, ZstdCompressor

from images.entries import Entry, Kind, encoded
from images.files import data_ranges
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.formats.tar_writer import BLOCK, MAX_ID, MAX_SIZE, NAME_SIZE, extended, header
from images.trees import Item

_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)
_HOLE = 64 << 20  # holes are packed in such steps
_TYPES = {
    Kind.FILE: b"0",
    Kind.SYMLINK: b"2",
    Kind.CHARACTER_DEVICE: b"3",
    Kind.BLOCK_DEVICE: b"4",
    Kind.DIRECTORY: b"5",
    Kind.FIFO: b"6",
}
_LINK = b"1"
_PARAMETERS: dict[int, int] = {CompressionParameter.checksum_flag: 1}


def tar_stream(path: Path) -> Iterator[bytes]:
    """The files of an image as a PAX archive: owners, modes, links, devices and attributes.

    Sockets are left out, as tar does; holes are written as zeros. ``Invalid`` for an image that
    cannot be read, at the damaged place.
    """
    with open_disk(path) as disk:
        for item in Ext4(disk).items():
            if item.entry.kind is not Kind.SOCKET:
                yield _headers(item)
                yield from _data(item)
    yield bytes(2 * BLOCK)


def ext4_zst_stream(path: Path) -> Iterator[bytes]:
    """The file of an image compressed with zstd; its holes are not read, and cost nothing."""
    hole = _compressed_hole()
    done = 0
    with path.open("rb", buffering=0) as file:
        size = file.seek(0, os.SEEK_END)
        for start, end in (*data_ranges(file.fileno(), size), (size, size)):
            while start - done >= _HOLE:
                yield hole
                done += _HOLE
            yield from compressed(_plain(file.fileno(), done, start, end))
            done = end


def _plain(fd: int, hole: int, start: int, end: int) -> Iterator[bytes]:
    """The zeros from ``hole`` to ``start``, then the data up to ``end``."""
    yield from _zeros(start - hole)
    while start < end:
        data = os.pread(fd, min(_CHUNK, end - start), start)
        if not data:
            raise EOFError("the image became shorter while it was read")
        yield data
        start += len(data)


def compressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """One zstd frame; frames may follow each other."""
    compressor = ZstdCompressor(options=_PARAMETERS)
    for chunk in chunks:
        if packed := compressor.compress(chunk):
            yield packed
    yield compressor.flush()


def _compressed_hole() -> bytes:
    return b"".join(compressed(_zeros(_HOLE)))


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= _CHUNK


def _data(item: Item) -> Iterator[bytes]:
    """A file's bytes up to the next block's beginning."""
    if item.link_to is not None:
        return
    at = 0
    for offset, data in item.pieces:
        yield from _zeros(offset - at)
        yield data
        at = offset + len(data)
    yield from _zeros(item.entry.size + -item.entry.size % BLOCK - at)


def _headers(item: Item) -> bytes:
    """The header of an entry, after one of PAX records where it does not say everything."""
    entry, link = item.entry, item.link_to
    name = b"./" + encoded(entry.path)
    if entry.kind is Kind.DIRECTORY and entry.path:
        name += b"/"
    target = b"./" + encoded(link) if link is not None else encoded(entry.target)
    type_ = _LINK if link is not None else _TYPES[entry.kind]
    size = entry.size if link is None else 0
    records = _records(entry, name, target, size)
    return extended(records, header(entry, name, target, type_, size))


def _records(entry: Entry, name: bytes, target: bytes, size: int) -> dict[bytes, bytes]:
    """What the fields of a header cannot hold; text that is no UTF-8 is declared as bytes."""
    records: dict[bytes, bytes] = {}
    for key, text in ((b"path", name), (b"linkpath", target)):
        if len(text) > NAME_SIZE or not text.isascii():
            records[key] = text
    for key, number, highest in (
        (b"size", size, MAX_SIZE),
        (b"uid", entry.uid, MAX_ID),
        (b"gid", entry.gid, MAX_ID),
    ):
        if number > highest:
            records[key] = b"%d" % number
    if not _is_utf8(b"".join(records.values())):
        records = {b"hdrcharset": b"BINARY"} | records
    return records | _xattr_records(entry.xattrs)


def _xattr_records(xattrs: Mapping[str, bytes]) -> dict[bytes, bytes]:
    """As GNU tar writes attributes: a record's name may have no ``=``."""
    return {
        b"SCHILY.xattr." + encoded(name).replace(b"%", b"%25").replace(b"=", b"%3D"): value
        for name, value in sorted(xattrs.items())
    }


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True

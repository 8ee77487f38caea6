"""A drive as a file: a POSIX tar archive, compressed with zstd, that GNU tar reads as well.

    drive.json         what it is (``Manifest``)
    disk.img           the disk, as a sparse file (PAX 1.0): a map, and the data that it places
    disk.img.sha256    of the map and the data, as they stand in the archive

They come in this order and alone. Both ways need constant memory, and holes cost nothing.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, ValidationError

from drives.transfers.target import MAX_SIZE, Target
from images.entries import Entry, Kind
from images.export import compressed
from images.files import data_ranges
from images.formats import tar_sparse
from images.formats.compression import Readable, damaged
from images.formats.tar_reader import TarArchive
from images.formats.tar_writer import BLOCK, extended, header, padding
from images.formats.tar_writer import MAX_SIZE as MAX_FIELD
from images.trees import Item
from nexus_site.core.errors import Conflict, Invalid

SUFFIX = ".tar.zst"
MANIFEST, DISK, CHECKSUM = "drive.json", "disk.img", "disk.img.sha256"

_SPARSE_NAME = b"GNUSparseFile.0/disk.img"  # for programs that do not know sparse files
_FILE = b"0"
_PIECE = 1 << 20
_SMALLEST_HOLE = 64 << 10  # smaller ones are stored as zeros
_MAX_PARTS = tar_sparse.MAX_PARTS - 1  # the last one marks the end
_MAX_SMALL = 64 << 10  # bytes of the files beside the disk
_MAX_BEHIND = 1 << 20  # zeros with which programs fill their last record


class ImageRef(BaseModel):
    """The image that a drive descends from."""

    id: str = Field(max_length=40)
    name: str = Field(max_length=63)
    digest: str = Field(max_length=64)


class Manifest(BaseModel):
    """``drive.json``; fields that it does not know are ignored, its name may be no name here."""

    format: Literal[1] = 1
    name: str = Field(max_length=63)
    size_bytes: int = Field(gt=0, le=MAX_SIZE)
    image: ImageRef | None = None
    exported_at: datetime


def pack(path: Path, manifest: Manifest) -> Iterator[bytes]:
    """The disk in ``path`` as an archive. Raises ``Conflict`` when it is written to meanwhile."""
    return compressed(_plain(path, manifest))


def _plain(path: Path, manifest: Manifest) -> Iterator[bytes]:
    mtime = int(manifest.exported_at.timestamp())
    with path.open("rb", buffering=0) as file:
        before = _state(file.fileno())
        parts = _parts(file.fileno(), manifest.size_bytes)
        yield _member(MANIFEST, manifest.model_dump_json(indent=2).encode() + b"\n", mtime)
        digest = hashlib.sha256()
        yield _disk_header(parts, manifest.size_bytes, mtime)
        for data in _stored(file.fileno(), parts):
            digest.update(data)
            yield data
        yield padding(_data_bytes(parts))
        if _state(file.fileno()) != before or before[0] != manifest.size_bytes:
            raise Conflict(
                f"The drive “{manifest.name}” was written to while it was exported.",
                hint="Take a snapshot, and export that.",
                code="drive-changed",
            )
        yield _member(CHECKSUM, f"{digest.hexdigest()}\n".encode(), mtime)
        yield bytes(2 * BLOCK)


def _state(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_size, status.st_mtime_ns


def _parts(fd: int, size: int) -> list[tar_sparse.Part]:
    """Where the data is; holes are widened until the map is one that readers take."""
    gap, ranges = _SMALLEST_HOLE, list[tuple[int, int]]()
    for found in data_ranges(fd, size):
        _add(ranges, found, gap)
        while len(ranges) > _MAX_PARTS:
            gap *= 2
            closer = list[tuple[int, int]]()
            for known in ranges:
                _add(closer, known, gap)
            ranges = closer
    parts = [(start, end - start) for start, end in ranges]
    if not ranges or ranges[-1][1] < size:
        parts.append((size, 0))  # without it GNU tar would make the file end with its data
    return parts


def _add(ranges: list[tuple[int, int]], found: tuple[int, int], gap: int) -> None:
    """Append a range, or join it with the last where the hole between is smaller than ``gap``."""
    if ranges and found[0] - ranges[-1][1] < gap:
        ranges[-1] = ranges[-1][0], found[1]
    else:
        ranges.append(found)


def _stored(fd: int, parts: list[tar_sparse.Part]) -> Iterator[bytes]:
    """The bytes of the disk's member: its map, then its data."""
    yield tar_sparse.map_block(parts)
    for offset, length in parts:
        end = offset + length
        while offset < end:
            data = os.pread(fd, min(_PIECE, end - offset), offset)
            if not data:
                raise EOFError("the drive became shorter while it was read")
            yield data
            offset += len(data)


def _member(name: str, content: bytes, mtime: int) -> bytes:
    entry = Entry(name, Kind.FILE, 0o644, mtime=mtime)
    block = header(entry, name.encode(), b"", _FILE, len(content))
    return block + content + padding(len(content))


def _disk_header(parts: list[tar_sparse.Part], size: int, mtime: int) -> bytes:
    stored = len(tar_sparse.map_block(parts)) + _data_bytes(parts)
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": DISK.encode(),
        b"GNU.sparse.realsize": b"%d" % size,
    }
    if stored > MAX_FIELD:
        records[b"size"] = b"%d" % stored
    entry = Entry(DISK, Kind.FILE, 0o600, mtime=mtime)
    return extended(records, header(entry, _SPARSE_NAME, b"", _FILE, stored))


def _data_bytes(parts: list[tar_sparse.Part]) -> int:
    return sum(length for _, length in parts)


class DriveArchive:
    """An archive as it arrives, unpacked from zstd already. First it says what it declares:
    ``manifest``, and ``data_bytes``, of which ``write`` takes exactly so many.

    Raises ``Invalid`` for whatever ``pack`` would not have written.
    """

    def __init__(self, stream: Readable) -> None:
        self._stream, self._tar = stream, TarArchive(stream)
        self._items = iter(self._tar)
        self.manifest = _parsed(self._small(MANIFEST))
        self._disk = self._next(DISK)
        self._parts = list(self._tar.parts)
        self.data_bytes = _data_bytes(self._parts)
        if self._disk.entry.size != self.manifest.size_bytes:
            raise damaged(
                f"{DISK} has {self._disk.entry.size} bytes, {self.manifest.size_bytes} are declared"
            )

    def write(self, target: Target) -> None:
        """Write the disk, then prove that it was the right one, and that nothing follows."""
        digest = hashlib.sha256(tar_sparse.map_block(self._parts))
        for offset, data in self._disk.pieces:
            digest.update(data)
            target.write(offset, data)
        self._compare(digest.hexdigest())
        if next(self._items, None) is not None:
            raise _unexpected(self._tar.name, "nothing more")
        self._end()

    def _next(self, name: str) -> Item:
        item = next(self._items, None)
        if item is None:
            raise damaged(f"it has no {name}")
        plain = self._tar.name in (name.encode(), b"./" + name.encode())
        if not plain or item.entry.kind is not Kind.FILE or item.link_to is not None:
            raise _unexpected(self._tar.name, f"a file {name}")
        return item

    def _small(self, name: str) -> bytes:
        item = self._next(name)
        if item.entry.size > _MAX_SMALL:
            raise damaged(f"{name} has {item.entry.size} bytes")
        return b"".join(data for _, data in item.pieces)

    def _compare(self, found: str) -> None:
        said = self._small(CHECKSUM).decode("ascii", "replace").strip()[:64]
        if said != found:
            raise Invalid(
                "The drive in the archive is not the one that was exported: "
                "its checksum is another.",
                detail=f"expected: sha256 {said}\nreceived: sha256 {found}",
                hint="Export it or fetch it again.",
                code="checksum",
            )

    def _end(self) -> None:
        """Read all that is left, so that the compression's own checksum counts too."""
        behind = 0
        while data := self._stream.read(_MAX_SMALL):
            behind += len(data)
            if behind > _MAX_BEHIND or data.strip(b"\0"):
                raise damaged("something follows its end")


def _parsed(raw: bytes) -> Manifest:
    try:
        return Manifest.model_validate_json(raw)
    except ValidationError as error:
        reasons = [f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise Invalid(
            f"The {MANIFEST} of the archive makes no sense.",
            detail="\n".join(reasons),
            hint="A newer Nexus may have written it, or another program.",
            code="archive-damaged",
        ) from error


def _unexpected(name: bytes, instead: str) -> Invalid:
    shown = name.decode("utf-8", "backslashreplace")[:100]
    return Invalid(
        f"The archive is no exported drive: it has {shown!r} in place of {instead}.",
        hint="Drives are exported with: nexusctl drive export DRIVE. "
        "Other archives become images: nexusctl image import FILE",
        code="archive-unexpected",
    )

"""Make drives to export, and archives of drives by hand, so that they can be as wrong as any."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from backports import zstd

from drives.models import Drive, Snapshot
from drives.services import storage
from tests.images.formats.archive_files import END, file, padded, pax

MIB = 1 << 20
SIZE = 2 * MIB
ISLAND = random.Random(7).randbytes(4096)
AT = 128 << 10
PARTS = ((AT, len(ISLAND)), (SIZE, 0))
SPARSE_NAME = b"GNUSparseFile.0/disk.img"


def make_disk(path: Path, size: int, *islands: int, data: bytes = ISLAND) -> Path:
    """A sparse file of ``size`` bytes with ``data`` at each of ``islands``."""
    with path.open("wb") as out:
        for offset in islands:
            out.seek(offset)
            out.write(data)
        out.truncate(size)
    return path


def store(drive: Drive, *islands: int) -> None:
    """Give a drive's row its file, whatever the storage is."""
    with storage().receive(drive.ref) as path:
        make_disk(path, drive.size_bytes, *islands)


def give_back() -> None:
    """Delete the files of all drives and snapshots."""
    for drive in Drive.objects.all():
        storage().delete(drive.ref)
    for snapshot in Snapshot.objects.all():
        storage().delete_snapshot(snapshot.ref)


def manifest(**changes: Any) -> bytes:
    """The member ``drive.json``."""
    document = {
        "format": 1,
        "name": "travelled",
        "size_bytes": SIZE,
        "image": None,
        "exported_at": "2026-07-29T12:00:00Z",
    }
    return file("drive.json", json.dumps(document | changes).encode())


def sparse_map(numbers: Sequence[int]) -> bytes:
    return padded(b"".join(b"%d\n" % number for number in (len(numbers) // 2, *numbers)))


def disk(
    parts: Sequence[tuple[int, int]] = PARTS,
    data: bytes = ISLAND,
    size: int = SIZE,
    name: bytes = b"disk.img",
    **fields: Any,
) -> bytes:
    """The member ``disk.img``; its map may lie."""
    records = {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }
    numbers = [number for part in parts for number in part]
    return pax(records) + file(SPARSE_NAME, sparse_map(numbers) + data, **fields)


def checksum(
    parts: Sequence[tuple[int, int]] = PARTS, data: bytes = ISLAND, name: str = "disk.img.sha256"
) -> bytes:
    """The member ``disk.img.sha256`` of such a disk."""
    numbers = [number for part in parts for number in part]
    digest = hashlib.sha256(sparse_map(numbers) + data).hexdigest()
    return file(name, f"{digest}\n".encode())


def packed(*members: bytes, end: bytes = END) -> bytes:
    """The archive of these members."""
    return zstd.compress(b"".join(members) + end, 3)


def whole() -> bytes:
    """What the exporter could have written."""
    return packed(manifest(), disk(), checksum())

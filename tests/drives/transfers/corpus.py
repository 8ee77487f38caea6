"""Files that must not become drives, as code that makes them, with the code of the refusal."""

from __future__ import annotations

import gzip
import json
import random

from backports import zstd

from tests.drives.transfers.drive_archives import (
    AT,
    ISLAND,
    SIZE,
    SPARSE_NAME,
    checksum,
    disk,
    manifest,
    packed,
    sparse_map,
    whole,
)
from tests.images.formats.archive_files import (
    directory,
    file,
    hard_link,
    header,
    pax,
    symlink,
)

_OTHER = random.Random(8).randbytes(len(ISLAND))
_TAIL = (SIZE, 0)

WRONG: dict[str, tuple[bytes, str]] = {
    # Checksums
    "another disk": (packed(manifest(), disk(data=_OTHER), checksum()), "checksum"),
    "the same data elsewhere": (
        packed(manifest(), disk(((AT + 512, 4096), _TAIL)), checksum()), "checksum",
    ),
    "no checksum in its file": (
        packed(manifest(), disk(), file("disk.img.sha256", b"")), "checksum",
    ),
    "a checksum that is no text": (
        packed(manifest(), disk(), file("disk.img.sha256", b"\xff" * 64)), "checksum",
    ),
    "no checksum": (packed(manifest(), disk()), "archive-damaged"),
    # Sizes
    "a disk larger than declared": (
        packed(manifest(size_bytes=SIZE // 2), disk(), checksum()), "archive-damaged",
    ),
    "a disk smaller than declared": (
        packed(manifest(size_bytes=2 * SIZE), disk(), checksum()), "archive-damaged",
    ),
    "data behind the end": (
        packed(manifest(), disk(((SIZE, 4096),)), checksum()), "archive-damaged",
    ),
    "more data than the map says": (
        packed(manifest(), disk(data=ISLAND * 2), checksum()), "archive-damaged",
    ),
    "less data than the map says": (
        packed(manifest(), disk(data=ISLAND[:512]), checksum()), "archive-damaged",
    ),
    "a disk beyond all limits": (
        packed(manifest(size_bytes=1 << 60), disk(size=1 << 60), checksum()), "archive-damaged",
    ),
    "a disk beyond all limits that does not say so": (
        packed(manifest(), disk(size=1 << 60), checksum()), "unsafe-entry",
    ),
    "a size with thousands of digits": (
        packed(manifest(), pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9" * 5000})
               + file(SPARSE_NAME, sparse_map([]))), "archive-damaged",
    ),
    "a size below zero": (packed(manifest(size_bytes=-1), disk()), "archive-damaged"),
    "a disk of nothing": (
        packed(manifest(size_bytes=0), disk((), b"", 0), checksum((), b"")), "archive-damaged",
    ),
    "more data than any disk here has room for": (
        packed(
            manifest(size_bytes=8 << 40),
            pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"%d" % (8 << 40),
                 b"GNU.sparse.name": b"disk.img", b"size": b"%d" % ((8 << 40) + 512)})
            + header(SPARSE_NAME) + sparse_map([0, 8 << 40]),
        ), "disk-full",
    ),
    # Maps
    "parts that overlap": (
        packed(manifest(), disk(((AT, 2048), (AT + 1024, 2048), _TAIL)), checksum()),
        "archive-damaged",
    ),
    "parts in no order": (
        packed(manifest(), disk(((AT, 2048), (0, 2048), _TAIL)), checksum()), "archive-damaged",
    ),
    "a map without end": (
        packed(manifest(), pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9999"})
               + file(SPARSE_NAME, b"99999999\n" + b"0\n0\n" * 500)), "archive-damaged",
    ),
    "a map that is no numbers": (
        packed(manifest(), pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9999"})
               + file(SPARSE_NAME, b"1\n-4096\n4096\n".ljust(512, b"\0") + ISLAND)),
        "archive-damaged",
    ),
    # Members
    "the disk first": (packed(disk(), manifest(), checksum()), "archive-unexpected"),
    "the checksum before the disk": (
        packed(manifest(), checksum(), disk()), "archive-unexpected",
    ),
    "two manifests": (packed(manifest(), manifest(), disk(), checksum()), "archive-unexpected"),
    "two disks": (packed(manifest(), disk(), disk(), checksum()), "archive-unexpected"),
    "two checksums": (packed(manifest(), disk(), checksum(), checksum()), "archive-unexpected"),
    "one member more": (
        packed(manifest(), disk(), checksum(), file("x", b"x")), "archive-unexpected",
    ),
    "another archive behind it": (
        packed(manifest(), disk(), checksum(), end=bytes(1024) + whole()), "archive-damaged",
    ),
    "zeros without end behind it": (
        packed(manifest(), disk(), checksum(), end=bytes(64 << 20)), "archive-damaged",
    ),
    "a manifest alone": (packed(manifest()), "archive-damaged"),
    "an absolute manifest": (
        packed(file("/drive.json", manifest()[512:]), disk(), checksum()), "archive-unexpected",
    ),
    "an absolute disk": (
        packed(manifest(), disk(name=b"/disk.img"), checksum()), "archive-unexpected",
    ),
    "a disk that is somewhere else": (
        packed(manifest(), disk(name=b"/etc/passwd"), checksum()), "archive-unexpected",
    ),
    "a disk above": (packed(manifest(), disk(name=b"../disk.img"), checksum()), "unsafe-entry"),
    "an absolute checksum": (
        packed(manifest(), disk(), checksum(name="/disk.img.sha256")), "archive-unexpected",
    ),
    "a manifest that is a link": (
        packed(symlink("drive.json", "/etc/passwd"), disk(), checksum()), "archive-unexpected",
    ),
    "a disk that is a link": (
        packed(manifest(), symlink("disk.img", "/dev/sda"), checksum()), "archive-unexpected",
    ),
    "a disk that is a hard link": (
        packed(manifest(), hard_link("disk.img", "drive.json"), checksum()), "archive-unexpected",
    ),
    "a disk that is a device": (
        packed(manifest(), header("disk.img", type=b"4", device=(8, 0)), checksum()),
        "archive-unexpected",
    ),
    "a disk that is a directory": (
        packed(manifest(), directory("disk.img"), checksum()), "archive-unexpected",
    ),
    "a member whose name is no text": (
        packed(file(b"\xff\xfe\xc3", b"x"), disk(), checksum()), "archive-unexpected",
    ),
    "a sparse name that is no text": (
        packed(manifest(), disk(name=b"disk\xff.img"), checksum()), "archive-unexpected",
    ),
    "a PAX header of 8 GiB": (
        packed(header("x", type=b"x", size=8**11 - 1)), "archive-too-large",
    ),
    "headers without end": (packed(pax({b"a": b"b"}) * 5000, manifest()), "archive-damaged"),
    # The manifest
    "a manifest that is no text": (
        packed(file("drive.json", b'{"name": "\xff\xfe"}'), disk(), checksum()),
        "archive-damaged",
    ),
    "a manifest that is no JSON": (packed(file("drive.json", b"size: 3")), "archive-damaged"),
    "a manifest that is a list": (packed(file("drive.json", b"[]")), "archive-damaged"),
    "a manifest of brackets": (packed(file("drive.json", b"[" * 60_000)), "archive-damaged"),
    "a manifest without end": (
        packed(file("drive.json", manifest()[512:].rstrip(b"\0") + b" " * (1 << 20)), disk(),
               checksum()), "archive-damaged",
    ),
    "a name that is a path": (packed(manifest(name="../../x"), disk()), "name-rule"),
    "a name that is an ID": (packed(manifest(name="aebagbafaydqq"), disk()), "name-is-id"),
    "a name that is no name": (packed(manifest(name="ÿ\u202e"), disk()), "name-rule"),
    "a format of the future": (packed(manifest(format=2), disk()), "archive-damaged"),
    # Compression
    "a damaged frame": (whole()[:200] + b"\0\0\0\0" + whole()[204:], "archive-damaged"),
    "a frame in a frame": (zstd.compress(whole()), "format-unknown"),
    "a frame of nothing": (zstd.compress(b""), "format-unknown"),
    "zeros without end": (zstd.compress(bytes(64 << 20)), "format-unknown"),
    # No drive at all
    "plain text": (b"Dear friend,\n" * 1000, "format-unknown"),
    "one byte": (b"x", "format-unknown"),
    "noise": (random.Random(5).randbytes(100_000), "format-unknown"),
    "packed text": (gzip.compress(b"Dear friend,\n" * 1000), "format-unknown"),
    "another archive": (packed(file("etc/passwd", b"x")), "archive-unexpected"),
    "JSON": (json.dumps({"format": 1}).encode(), "format-unknown"),
    "a disk image that lies": (b"QFI\xfb" + bytes(600), "image-unsupported"),
}  # fmt: skip

"""Archives as files: opened whatever their compression, unpacked to a scratch file, recognised."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from images.files import scratch_directory
from images.formats import qcow2
from images.formats.compression import (
    HEAD,
    MAX_UNPACKED,
    Readable,
    Unpacked,
    chunks,
    compression_of,
)
from images.formats.filling import Watch
from images.formats.tar_reader import BLOCK, TarArchive, is_header
from nexus_site.core.errors import Invalid, NotFound

MAX_DISK = 64 << 30  # of a compressed disk image, holes and all
_STEP = 1 << 20
_SUPERBLOCK, _EXT4_MAGIC = 1024, b"\x53\xef"
_MAGIC_AT = _SUPERBLOCK + 0x38

#: All that an archive of container images has at its top.
_CONTAINER_NAME = re.compile(
    r"(?:blobs(?:/.*)?|oci-layout|(?:index|manifest|config|version|VERSION)(?:\.json)?|"
    r"repositories|(?:sha256:)?[0-9a-f]{64}(?:\.json|\.tar(?:\.gz)?|/.*)?)\Z",
    re.DOTALL,
)


@contextlib.contextmanager
def opened(path: Path, max_bytes: int = 0) -> Iterator[Readable]:
    """The file to read from its beginning, unpacked where it is compressed.

    ``max_bytes``: so much of it may come out however small it is, for who knows what it declares.
    """
    limits = {"free_bytes": max_bytes, "max_bytes": max_bytes} if max_bytes else {}
    with _file(path) as file:
        compression = _compression(file)
        yield Unpacked(file, compression, **limits) if compression else file


@contextlib.contextmanager
def plain_file(path: Path, scratch_in: Path, watch: Watch) -> Iterator[Path]:
    """The file itself, or what it unpacks to as a scratch file in the directory ``scratch_in``."""
    with _file(path) as file:
        compression = _compression(file)
        if not compression:
            yield path
            return
        with scratch_directory(scratch_in) as scratch:
            unpacked = scratch / "unpacked"
            _write(Unpacked(file, compression, max_bytes=MAX_UNPACKED), unpacked, watch)
            yield unpacked


@contextlib.contextmanager
def plain_disk(path: Path, scratch_in: Path, watch: Watch) -> Iterator[Path]:
    """Like ``plain_file`` for a disk image, of which most may be zeros."""
    with _file(path) as file:
        compression = _compression(file)
        if not compression:
            yield path
            return
        unpacked = Unpacked(file, compression, free_bytes=MAX_DISK, max_bytes=MAX_DISK)
        with scratch_directory(scratch_in) as scratch:
            _write(unpacked, scratch / "disk", watch)
            yield scratch / "disk"


def detect(path: Path) -> str:
    """The format of a root file system by its content, as ``rootfs.FORMATS`` names it.

    Raises ``Invalid`` with the code ``format-unknown`` for anything else.
    """
    with _file(path) as file:
        if file.read(len(qcow2.MAGIC)) == qcow2.MAGIC:
            return "qcow2"
        file.seek(0)
        compression = _compression(file)
    with opened(path) as stream:
        head = stream.read(_MAGIC_AT + 2)
    if is_header(head[:BLOCK]):
        return _container_format(path) or (f"tar.{compression}" if compression else "tar")
    if head[_MAGIC_AT:] == _EXT4_MAGIC:
        return f"ext4.{compression}" if compression else "ext4"
    raise Invalid(
        "The file is no root file system that Nexus can read.",
        hint="It reads ext4 and qcow2 images, tar archives, OCI layouts and docker archives.",
        code="format-unknown",
    )


def _container_format(path: Path) -> str:
    """``oci`` or ``docker`` where every name in the archive is one of theirs; else ``""``."""
    names = set[str]()
    with opened(path) as stream:
        for item in TarArchive(stream):
            if item.entry.path and not _CONTAINER_NAME.match(item.entry.path):
                return ""
            if "/" not in item.entry.path:
                names.add(item.entry.path)
    if {"oci-layout", "index.json"} <= names:
        return "oci"
    return "docker" if "manifest.json" in names else ""


def _file(path: Path) -> BinaryIO:
    if not path.is_file():
        raise NotFound(f"There is no file {path.name}.")
    return path.open("rb")


def _compression(file: BinaryIO) -> str:
    """The compression of a file; it is at its beginning afterwards."""
    head = file.read(HEAD)
    file.seek(0)
    return compression_of(head)


def _write(stream: Readable, path: Path, watch: Watch) -> None:
    """Write a stream to a new file, zeros left as holes."""
    zeros = bytes(_STEP)
    with path.open("xb") as out:
        for count, data in enumerate(chunks(stream, _STEP)):
            if count % 64 == 0:
                watch(0)
            if data == zeros[: len(data)]:
                out.truncate(out.seek(len(data), 1))
            else:
                out.write(data)

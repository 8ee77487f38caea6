"""What is in a Debian package, read without any program and nowhere unpacked.

A package is an ar archive of ``debian-binary``, ``control.tar.*`` and ``data.tar.*``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from images.files import system_errors
from images.formats.compression import HEAD, Readable, Unpacked, compression_of
from images.formats.tar_reader import TarArchive
from images.trees import Item
from nexus_site.core.errors import Invalid

_MAGIC, _HEADER = b"!<arch>\n", 60
_MOST_MEMBERS = 16
_MAX_CONTROL, _MAX_DATA = 16 << 20, 4 << 30
_FIELD = re.compile(r"^(Package|Version|Architecture): *(\S+)$", re.MULTILINE)


def control_of(path: Path) -> dict[str, str]:
    """``Package``, ``Version`` and ``Architecture`` of a package. Raises ``Invalid``."""
    for item in items(path, "control.tar", _MAX_CONTROL):
        if item.entry.path == "control":
            text = b"".join(data for _, data in item.pieces).decode(errors="replace")
            return dict(_FIELD.findall(text))
    raise _no_package(path, "it has no control file")


def items(path: Path, member: str, most: int = _MAX_DATA) -> Iterator[Item]:
    """The entries of ``data.tar`` (or of another ``member``) in their order."""
    with system_errors(), path.open("rb") as file:
        part = _find(path, file, member)
        compression = compression_of(part.head)
        stream: Readable = part
        if compression:
            stream = Unpacked(part, compression, free_bytes=most, max_bytes=most)
        yield from TarArchive(stream)


def content(item: Item, most: int) -> bytes:
    """What a file in the package holds. Raises ``Invalid`` where that is more."""
    data = bytearray()
    for offset, piece in item.pieces:
        if offset + len(piece) > most:
            raise Invalid(
                f"“{item.entry.path}” in the package is larger than {most} bytes.",
                code="kernel-too-large",
            )
        data[offset:] = bytes(offset - len(data)) + piece
    return bytes(data)


class _Part:
    """A member of the archive, to be read from its beginning."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self.head = file.read(min(HEAD, size))
        file.seek(-len(self.head), 1)
        self._file, self._left = file, size

    def read(self, size: int, /) -> bytes:
        data = self._file.read(min(size, self._left))
        self._left -= len(data)
        return data


def _find(path: Path, file: BinaryIO, member: str) -> _Part:
    if file.read(len(_MAGIC)) != _MAGIC:
        raise _no_package(path, "it is no ar archive")
    for _ in range(_MOST_MEMBERS):
        header = file.read(_HEADER)
        if len(header) < _HEADER:
            break
        name = header[:16].decode("ascii", "replace").strip().rstrip("/")
        size = header[48:58].decode("ascii", "replace").strip()
        if not size.isdecimal() or header[58:] != b"`\n":
            raise _no_package(path, "it is damaged")
        if name == member or name.startswith(f"{member}."):
            return _checked(path, name, _Part(file, int(size)))
        file.seek(int(size) + int(size) % 2, 1)
    raise _no_package(path, f"it has no {member}")


def _checked(path: Path, name: str, part: _Part) -> _Part:
    if "." in name.removeprefix("data.tar").removeprefix("control.tar") and not compression_of(
        part.head
    ):
        raise _no_package(path, f"{name} is packed in a way that Nexus does not know")
    return part


def _no_package(path: Path, reason: str) -> Invalid:
    return Invalid(
        f"“{path.name}” is no Debian package that can be read: {reason}.",
        hint="Name a file such as linux-image-6.1.0-56-cloud-amd64_….deb.",
        code="kernel-package",
    )


def write(item: Item, target: Path) -> None:
    """A file of the package as a new file of ours; the second of a name is left out."""
    if target.exists():
        return
    with target.open("xb") as file:
        for offset, data in item.pieces:
            file.seek(offset)
            file.write(data)

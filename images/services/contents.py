"""Looking into images: what is installed, what is where, one file, the whole as an archive."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from images.entries import Entry, Kind
from images.export import ext4_zst_stream, tar_stream
from images.inspection import open_image
from images.models import Image
from images.services.images import require_file
from nexus_site.core.errors import Invalid

_PIECE = 1 << 20
#: What an image can be written out as, with the suffix of the file.
EXPORTS = {"ext4.zst": ".ext4.zst", "tar": ".tar"}


@dataclass(frozen=True)
class FileContent:
    """A file of an image: its entry, and its bytes in pieces."""

    entry: Entry
    pieces: Iterator[bytes]


def list_directory(image: Image, path: str) -> list[Entry]:
    """What is in a directory of the image, by name; ``NotFound``, ``Invalid``."""
    with open_image(require_file(image)) as view:
        return view.list(path)


def open_file(image: Image, path: str) -> FileContent:
    """A file of the image; links are followed inside it. ``NotFound``, ``Invalid``."""
    source = require_file(image)
    with open_image(source) as view:
        entry = view.entry(path, follow=True)
    if entry.kind is not Kind.FILE:
        raise Invalid(f"{path} is a {entry.kind}, not a file.", code="not-a-file")

    def pieces() -> Iterator[bytes]:
        with open_image(source) as view, view.open(path) as file:
            while data := file.read(_PIECE):
                yield data

    return FileContent(entry, pieces())


def export(image: Image, form: str) -> Iterator[bytes]:
    """The whole image: its very file system (``ext4.zst``), or an archive of its files."""
    path = require_file(image)
    if form not in EXPORTS:
        raise Invalid(
            f"An image cannot be written out as “{form}”.",
            hint=f"It can as: {', '.join(EXPORTS)}",
            code="format-unknown",
        )
    return ext4_zst_stream(path) if form == "ext4.zst" else tar_stream(path)

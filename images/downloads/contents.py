"""Checksums of what a compressed file holds, for publishers who give no other."""

from __future__ import annotations

import hashlib
from pathlib import Path

from images.files import Progress, no_progress
from images.formats.compression import HEAD, Unpacked, chunks, compression_of
from nexus_site.core.errors import Broken


def check_content(path: Path, sha256: str, progress: Progress = no_progress) -> None:
    """Raise ``Broken`` unless the decompressed content of ``path`` has this checksum.

    Decompresses in constant memory. ``Invalid`` where it is damaged or a decompression bomb.
    """
    digest, size = hashlib.sha256(), path.stat().st_size
    with path.open("rb") as file:
        compression = compression_of(file.read(HEAD))
        file.seek(0)
        for data in chunks(Unpacked(file, compression) if compression else file):
            digest.update(data)
            progress(file.tell(), size)
    if digest.hexdigest() != sha256:
        raise Broken(
            "The decompressed file is not the one that was asked for: its checksum is wrong.",
            detail=f"expected: sha256 {sha256}\nfound: sha256 {digest.hexdigest()}",
            hint="The mirror is damaged or out of step; try another, or try later.",
            code="checksum",
        )

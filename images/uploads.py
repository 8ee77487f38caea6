"""Files that people send: kept until the operation that names them has taken them.

An upload is one file in ``assets/uploads``, named by an ID of its own. What no operation names
is swept after a day, when a worker starts.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from django.conf import settings
from django.http import UnreadablePostError

from images.files import sweep, whole_file
from nexus_site.core.errors import Invalid, NotFound, Retryable, as_nexus_error
from nexus_site.core.ids import NexusID, is_id
from nexus_site.core.operations import open_operations

KEPT_FOR = 24 * 3600.0  # seconds
_STEP = 1 << 20


class Stream(Protocol):
    """What can be read to its end, such as a request."""

    def read(self, size: int, /) -> bytes: ...


@dataclass(frozen=True)
class Upload:
    """A file that somebody sent; ``filename`` is what they call it."""

    ref: str
    path: Path
    size_bytes: int
    sha256: str
    filename: str = ""


def uploads_dir() -> Path:
    return Path(settings.NEXUS.data_dir) / "assets" / "uploads"


def receive(stream: Stream, *, sha256: str = "", filename: str = "") -> Upload:
    """Keep all of ``stream``, in constant memory; it must have ``sha256`` if one is given.

    Raises ``Invalid`` (``checksum``, ``upload-empty``), ``Retryable`` (``disk-full``,
    ``upload-broken``); nothing is kept then.
    """
    ref, digest, size = str(NexusID.random()), hashlib.sha256(), 0
    path = uploads_dir() / ref
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with whole_file(path) as temporary, temporary.open("wb") as file:
            while data := stream.read(_STEP):
                digest.update(data)
                size += file.write(data)
            file.flush()
            _check(digest.hexdigest(), sha256, size)
    except UnreadablePostError as error:
        raise Retryable(
            "The upload broke off.", hint="Send the file again.", code="upload-broken"
        ) from error
    except OSError as error:
        raise as_nexus_error(error) from error
    return Upload(ref, path, size, digest.hexdigest(), filename)


def find_upload(ref: str) -> Upload:
    """An upload that is still here; reads it for its checksum. ``NotFound`` otherwise."""
    path = uploads_dir() / ref
    if not is_id(ref) or not path.is_file():
        raise NotFound(
            "The uploaded file is gone.", hint="Send the file again.", code="upload-gone"
        )
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return Upload(ref, path, path.stat().st_size, sha256)


def discard(ref: str) -> None:
    """Delete an upload; one that is gone is fine."""
    if is_id(ref):
        (uploads_dir() / ref).unlink(missing_ok=True)


def discard_unless_named(ref: str) -> None:
    """Delete an upload that no open operation has in its ``params["upload"]``."""
    if not open_operations().filter(params__upload=ref).exists():
        discard(ref)


def sweep_uploads() -> None:
    """Delete uploads that are older than a day and that no operation will take."""
    sweep(uploads_dir())
    for path in uploads_dir().glob("*"):
        if time.time() - path.stat().st_mtime > KEPT_FOR:
            discard_unless_named(path.name)


def _check(found: str, expected: str, size: int) -> None:
    if not size:
        raise Invalid("The upload is empty.", code="upload-empty")
    if expected and found != expected.lower():
        raise Invalid(
            "The uploaded file is not the one that was meant: its checksum is another.",
            detail=f"expected: sha256 {expected}\nreceived: sha256 {found}",
            hint="Send the file again, or correct its sha256.",
            code="checksum",
        )

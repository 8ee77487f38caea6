"""What a download has of a file so far; survives failures and the death of the process.

``.NAME.download`` is the data and ``.NAME.download.json`` says of what: URL, validators of the
server's version, and the checksum that was expected. Whoever works on them holds the lock of the
data. Partial files that nobody has worked on for a day are swept.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import BinaryIO

SUFFIX = ".download"
KEPT_FOR = 24 * 3600.0  # seconds
_READ_STEP = 1 << 20
_LOCK_PAUSE = 0.2


@dataclass(frozen=True)
class Source:
    """Of what version of what file the data is a part."""

    url: str
    sha256: str = ""
    etag: str = ""
    last_modified: str = ""

    @property
    def validator(self) -> str:
        """What ``If-Range`` can ask with; a weak ETag cannot vouch for bytes."""
        return self.etag if self.etag.startswith('"') else self.last_modified


@dataclass
class Partial:
    """A locked partial file, its data so far, and the checksum of that."""

    path: Path
    file: BinaryIO
    size: int = 0
    _digest: hashlib._Hash = field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def resume(self, wanted: Source) -> Source | None:
        """Take up the data if it is of ``wanted`` and can be vouched for; else drop it.

        Returns the version that the data is of.
        """
        source = self._read_source()
        size = os.fstat(self.file.fileno()).st_size
        if (
            source is None
            or not size
            or (source.url, source.sha256) != (wanted.url, wanted.sha256)
            or not (source.validator or source.sha256)
        ):
            self.start(wanted)
            return None
        if size != self.size:
            self._read_data()
        return source

    def start(self, source: Source) -> None:
        """Begin anew, with the data of ``source``."""
        self.file.seek(0)
        self.file.truncate()
        self.size, self._digest = 0, hashlib.sha256()
        self._sidecar.write_text(json.dumps(asdict(source)))

    def append(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:  # an unbuffered file may take less at a time
            rest = rest[self.file.write(rest) :]
        self._digest.update(data)
        self.size += len(data)

    def discard(self) -> None:
        """Delete the data; nothing is left to resume."""
        self.path.unlink(missing_ok=True)
        self._sidecar.unlink(missing_ok=True)

    def discard_if_empty(self) -> None:
        """Leave no marks of a download of which nothing has come: there is nothing to resume."""
        if not os.fstat(self.file.fileno()).st_size:
            self.discard()

    def forget_source(self) -> None:
        """Delete the note beside the data, whose file has been moved into its place."""
        self._sidecar.unlink(missing_ok=True)

    @property
    def _sidecar(self) -> Path:
        return self.path.with_name(f"{self.path.name}.json")

    def _read_source(self) -> Source | None:
        try:
            return Source(**json.loads(self._sidecar.read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def _read_data(self) -> None:
        """The checksum of what an earlier process left."""
        self.size, self._digest = 0, hashlib.sha256()
        self.file.seek(0)
        while data := self.file.read(_READ_STEP):
            self._digest.update(data)
            self.size += len(data)


@contextlib.contextmanager
def locked_partial(target: Path, waiting: Callable[[], None]) -> Iterator[Partial]:
    """The partial file of ``target``, ours alone; ``waiting`` is called while it is another's."""
    path = target.with_name(f".{target.name}{SUFFIX}")
    with _locked(path, waiting) as file:
        yield Partial(path, file)


def sweep_partials(directory: Path, older_than: float = KEPT_FOR) -> list[Path]:
    """Remove partial files that nobody works on or has worked on for so many seconds."""
    removed = []
    for path in sorted(directory.glob(f".*{SUFFIX}")):
        with contextlib.suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if time.time() - path.stat().st_mtime > older_than:
                path.unlink()
                path.with_name(f"{path.name}.json").unlink(missing_ok=True)
                removed.append(path)
    for note in directory.glob(f".*{SUFFIX}.json"):  # of one that was moved into its place
        if not note.with_suffix("").exists():
            note.unlink(missing_ok=True)
    return removed


@contextlib.contextmanager
def _locked(path: Path, waiting: Callable[[], None]) -> Iterator[BinaryIO]:
    """The file at ``path``, locked, and still the one at ``path`` once the lock is ours."""
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(fd, "r+b", buffering=0) as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                time.sleep(_LOCK_PAUSE)
                continue
            if _is_still_at(path, file):
                yield file
                return


def _is_still_at(path: Path, file: BinaryIO) -> bool:
    """Whether whoever had the lock before left the file where it was."""
    try:
        return os.path.samestat(path.stat(), os.fstat(file.fileno()))
    except FileNotFoundError:
        return False

"""Things that take long to make, kept on disk under the digest of what they are made from."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MANIFEST = "manifest.json"  # the names and sizes of an entry's other files


def default_directory() -> Path:
    """``$XDG_CACHE_HOME/nexus/rig``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "nexus/rig"


def digest(*parts: str | Path) -> str:
    """A key made of words and of the contents of files (their modes and names do not count)."""
    found = hashlib.sha256()
    for part in parts:
        data = part.read_bytes() if isinstance(part, Path) else part.encode()
        found.update(b"%d:" % len(data) + data)
    return found.hexdigest()[:16]


class Cache:
    """Directories of files, one a key; safe for several processes at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    @contextmanager
    def entry(self, key: str, make: Callable[[Path], None]) -> Iterator[Path]:
        """The directory that ``make`` has once filled for ``key``; it stays while it is used.

        One that lacks files or has too short ones is made anew. Entries of other keys, if
        nobody uses them, go when a new one is made.
        """
        self._directory.mkdir(parents=True, exist_ok=True)
        with self._lock(key) as lock:
            entry = self._directory / key
            fcntl.flock(lock, fcntl.LOCK_SH)
            while not is_whole(entry):
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not is_whole(entry):  # nobody has made it while we waited
                    self._make(entry, make)
                    self._prune(key)
                fcntl.flock(lock, fcntl.LOCK_SH)
            yield entry

    def has(self, key: str) -> bool:
        """Whether there is an entry to use."""
        return is_whole(self._directory / key)

    def _make(self, entry: Path, make: Callable[[Path], None]) -> None:
        shutil.rmtree(entry, ignore_errors=True)
        new = Path(tempfile.mkdtemp(prefix=f".{entry.name}.", dir=self._directory))
        try:
            make(new)
            sizes = {path.name: path.stat().st_size for path in new.iterdir()}
            (new / MANIFEST).write_text(json.dumps(sizes))
            new.rename(entry)
        finally:
            shutil.rmtree(new, ignore_errors=True)

    def _prune(self, key: str) -> None:
        """Remove other keys' entries, and what killed processes left of theirs."""
        for path in self._directory.iterdir():
            other = path.name.removeprefix(".").partition(".")[0]
            if other == key or not path.is_dir():
                continue
            with self._lock(other) as lock, suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path)

    @contextmanager
    def _lock(self, key: str) -> Iterator[int]:
        descriptor = os.open(self._directory / f"{key}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            yield descriptor
        finally:
            os.close(descriptor)


def is_whole(entry: Path) -> bool:
    """Whether all that was made is still there, judged by names and sizes."""
    try:
        sizes = json.loads((entry / MANIFEST).read_text())
        return bool(sizes) and all(
            (entry / name).stat().st_size == size for name, size in sizes.items()
        )
    except (OSError, ValueError, AttributeError):
        return False

"""Where things are in this clone."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin/python"
NEXUSCTL = VENV / "bin/nexusctl"
NEXUSD = VENV / "bin/nexusd"
NODE_MODULES = ROOT / "node_modules"


def extend_path() -> None:
    """Let this process and its children find what we install, and the system's sbin tools.

    Behind what is there: a system's own QEMU or npm is preferred to a package's.
    """
    extra = (str(VENV / "bin"), "/usr/local/sbin", "/usr/sbin", "/sbin")
    os.environ["PATH"] = os.pathsep.join([os.environ.get("PATH", os.defpath), *extra])


class Stamp:
    """A file that remembers what something was made from.

    ``parts`` are the sources: files (their content counts) and plain words.
    """

    def __init__(self, path: Path, *parts: Path | str) -> None:
        digest = hashlib.sha256()
        for part in parts:
            data = part.read_bytes() if isinstance(part, Path) else part.encode()
            digest.update(b"%d:" % len(data) + data)
        self._path = path
        self._digest = digest.hexdigest()

    def fresh(self) -> bool:
        """Whether it was made from exactly these parts."""
        try:
            return self._path.read_text() == self._digest
        except OSError:
            return False

    def write(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._path.write_text(self._digest)

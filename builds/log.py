"""A build's log: a file of lines with the time before each, for people."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from builds.models import Making

MAX_LOG = 16 << 20  # bytes; what a build says beyond it is not kept
_MAX_LINE = 4096  # bytes; longer lines are broken
_CUT = "… the log is full: what follows is not kept\n"


def log_path(build: Making) -> Path:
    """Where the build's log is kept, for as long as the build's row."""
    return Path(settings.NEXUS.data_dir) / "builds" / f"{build.ref}.log"


def write(build: Making, text: str) -> None:
    """Add lines to the build's log; a full disk must not hide the failure it causes."""
    _append(log_path(build), text)


class Output:
    """What a program says, made into lines of the log as it comes.

    ``recent`` has the last lines, as evidence for an error.
    """

    def __init__(self, build: Making) -> None:
        self._path = log_path(build)
        self._rest = b""
        self.recent: list[str] = []

    def add(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data.replace(b"\r\n", b"\n")).split(b"\n")
        while len(self._rest) > _MAX_LINE:
            lines.append(self._rest[:_MAX_LINE])
            self._rest = self._rest[_MAX_LINE:]
        self._keep([line.decode("utf-8", "replace") for line in lines])

    def finish(self) -> None:
        """Keep the line that had no end."""
        if self._rest:
            self.add(b"\n")

    def _keep(self, lines: list[str]) -> None:
        # Progress bars draw over their line; the last state of it is what counts.
        shown = [line.rstrip("\r").rpartition("\r")[2] for line in lines]
        if shown:
            self.recent = [*self.recent, *shown][-20:]
            _append(self._path, "\n".join(f"  {line}" for line in shown))


def _append(path: Path, text: str) -> None:
    stamp = datetime.now(UTC).strftime("%H:%M:%S")
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a", encoding="utf-8", errors="replace") as file:
            if file.tell() < MAX_LOG:
                file.writelines(f"{stamp} {line}\n" for line in text.split("\n"))
                if file.tell() >= MAX_LOG:
                    file.write(_CUT)

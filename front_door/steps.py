"""What a person sees while ``./nexus`` works: one line a step, with its outcome and time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TextIO

from front_door.paths import ROOT
from nexus_site.core.errors import Broken

TITLE_WIDTH = 20
EVIDENCE_LINES = 20


class Terminal:
    """Writes lines to stderr; on a real terminal the last line may be drawn anew."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self.live = self._stream.isatty() and os.environ.get("TERM") != "dumb"
        self._colour = self.live and "NO_COLOR" not in os.environ

    def line(self, mark: str, text: str, colour: int = 0) -> None:
        """Write one finished line."""
        if self._colour and colour:
            mark = f"\x1b[{colour}m{mark}\x1b[0m"
        start = "\r\x1b[K" if self.live else ""
        print(f"{start}{mark} {text}", file=self._stream, flush=True)

    def draw(self, text: str) -> None:
        """Replace the unfinished last line (nothing where there is no real terminal)."""
        if self.live:
            width = shutil.get_terminal_size().columns - 1
            print(f"\r\x1b[K{text[:width]}", end="", file=self._stream, flush=True)


class Step:
    """One step under way; ``note`` is what its final line says."""

    def __init__(self, terminal: Terminal, title: str) -> None:
        self._terminal = terminal
        self._title = title
        self._doing = ""
        self._began = time.monotonic()
        self.note = ""

    def seconds(self) -> float:
        return time.monotonic() - self._began

    def doing(self, what: str) -> None:
        """Say what is being done, before it is done."""
        self._doing = what
        if self._terminal.live:
            self.tick()
        else:
            self._terminal.line("-", f"{self._title}: {what}")

    def tick(self) -> None:
        """Show that time goes by; to be called now and then while waiting."""
        self._terminal.draw(f"  {self._title}: {self._doing} ({self.seconds():.0f} s)")

    def run(self, argv: Sequence[str | Path], env: Mapping[str, str] | None = None) -> str:
        """Run a command in the clone and return what it printed; Broken, with it, if it fails."""
        with tempfile.TemporaryFile() as output:
            code = self._wait(argv, output, env)
            output.seek(0)
            text = output.read().decode(errors="replace")
        if code:
            command = " ".join(str(word) for word in argv)
            raise Broken(
                f"{self._title}: `{command}` exited with code {code}.",
                detail="\n".join(text.strip().splitlines()[-EVIDENCE_LINES:]),
            )
        return text

    def _wait(
        self, argv: Sequence[str | Path], output: IO[bytes], env: Mapping[str, str] | None
    ) -> int:
        with subprocess.Popen(
            argv,
            cwd=ROOT,
            env=None if env is None else os.environ | env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        ) as process:
            while True:
                try:
                    return process.wait(0.2)
                except subprocess.TimeoutExpired:
                    self.tick()


@contextmanager
def step(terminal: Terminal, title: str) -> Iterator[Step]:
    """Print the step's line when it is through: a tick, or a cross before an error goes on."""
    this = Step(terminal, title)
    try:
        yield this
    except BaseException:
        terminal.line("✗", f"{title} ({this.seconds():.1f} s)", colour=31)
        raise
    took = this.note or f"{this.seconds():.1f} s"
    if this.note and this.seconds() >= 1:
        took = f"{this.note} ({this.seconds():.1f} s)"
    terminal.line("✓", f"{title:<{TITLE_WIDTH}} {took}", colour=32)

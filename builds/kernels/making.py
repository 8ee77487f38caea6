"""Running the kernel's own makefiles: configured, compiled, stripped; nothing runs on after us."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from builds.kernels import toolchain
from builds.kernels.additions import add_to
from builds.kernels.fragments import Fragment, require_taken
from images.files import whole_file
from images.programs import run_watched
from nexus_site.core.errors import Broken, NexusError, Retryable
from nexus_site.core.life import lives

NICE = ("nice", "-n", "19")
_FULL = re.compile(r"No space left on device|Disk quota exceeded")
_OBJECT = re.compile(rb"^  (?:CC|AS) +\S+\.o$")

Say = Callable[[bytes], None]


@dataclass(frozen=True)
class Workplace:
    """Where one kernel is built: its source, what is made of it, and room for temporary files."""

    directory: Path

    @property
    def source(self) -> Path:
        return self.directory / "source"

    @property
    def out(self) -> Path:
        return self.directory / "out"

    @property
    def config(self) -> Path:
        return self.out / ".config"

    @property
    def vmlinux(self) -> Path:
        """The kernel without its symbols, once it is made."""
        return self.directory / "vmlinux"

    def configure(self, fragment: Fragment, say: Say) -> None:
        """Write `.config`; ``Invalid`` (``options-not-taken``) where it is not as wished."""
        self.out.mkdir(exist_ok=True)
        for name in add_to(self.source):
            say(f"  ADD     {name}\n".encode())
        wished = self.directory / "allconfig"
        wished.write_text(fragment.allconfig)
        self._make(say, f"KCONFIG_ALLCONFIG={wished}", "allnoconfig")
        self._make(say, "olddefconfig")
        require_taken(fragment, self.config.read_text(errors="replace"))

    def compile(self, jobs: int, say: Say) -> None:
        """Make `vmlinux`, and take its symbols away; goes on where an earlier try stopped."""
        self._make(say, f"-j{jobs}", "vmlinux")
        made = self.out / "vmlinux"
        if not made.is_file():
            raise Broken(
                "The build ended well and left no vmlinux.",
                hint="Its log tells what was made.",
                code="kernel-build-failed",
            )
        with whole_file(self.vmlinux, mode=0o400) as temporary:
            self._run(say, "strip", "-o", str(temporary), str(made))

    def end_left(self) -> None:
        """End what a killed worker left running; safe to repeat."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            record = json.loads(self._record.read_text())
            if lives(record["pid"], record["started"]):
                os.killpg(record["pid"], signal.SIGKILL)
                while lives(record["pid"], record["started"]):
                    time.sleep(0.05)

    @property
    def _record(self) -> Path:
        return self.directory / "make.json"

    def _make(self, say: Say, *words: str) -> None:
        self._run(say, "make", "-C", str(self.source), f"O={self.out}", "ARCH=x86_64", *words)

    def _run(self, say: Say, *argv: str) -> None:
        temporary = self.directory / "tmp"
        temporary.mkdir(exist_ok=True)
        said = b""

        def listen(words: bytes) -> None:
            nonlocal said
            said = (said + words)[-16_000:]
            say(words)

        code = run_watched(
            [*NICE, *argv],
            listen,
            environment=toolchain.environment(temporary),
            cwd=self.directory,
            started=self._note_started,
        )
        if code:
            raise _failed(argv[0], code, said.decode(errors="replace"))

    def _note_started(self, pid: int) -> None:
        record = {"pid": pid, "started": psutil.Process(pid).create_time()}
        self._record.write_text(json.dumps(record))


def is_object(line: bytes) -> bool:
    """Whether a line of make's says that one more object of the kernel is compiled."""
    return _OBJECT.match(line) is not None


def _failed(program: str, code: int, said: str) -> NexusError:
    """What a failure means, judged by the program's last words, which are its detail."""
    if _FULL.search(said):
        return Retryable(
            "The disk became full while the kernel was built.",
            detail=said,
            hint="A build takes some 2 GB below the data directory; free some, then try again.",
            code="disk-full",
        )
    lines = [line for line in said.splitlines() if "error" in line.lower() or "***" in line]
    first = f": {lines[0].strip()[:300]}" if lines else ""
    return Broken(
        f"{program} failed with exit code {code}{first}",
        detail=said,
        hint="The build's log has all that was said.",
        code="kernel-build-failed",
    )

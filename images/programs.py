"""Programs that run long: watched while they run, and ended with all their children."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

_LOOK_EVERY = 0.2  # seconds
_MAX_READ = 65_536


def run_watched(
    argv: Sequence[str | Path],
    watch: Callable[[bytes], None],
    *,
    environment: Mapping[str, str],
    out: IO[bytes] | None = None,
    cwd: Path | None = None,
    grace: float = 5.0,
    started: Callable[[int], None] = lambda pid: None,
) -> int:
    """Run a program to its end in a process group of its own; its exit code.

    ``watch`` is told what it says on stderr, and on stdout unless that goes to the file ``out``;
    several times a second also that it says nothing. When it raises, the group is asked to end,
    killed ``grace`` seconds later, and the error goes on. ``started`` is told the group's ID.
    """
    process = subprocess.Popen(
        [str(word) for word in argv],
        stdin=subprocess.DEVNULL,
        stdout=out or subprocess.PIPE,
        stderr=subprocess.PIPE if out else subprocess.STDOUT,
        bufsize=0,
        env=dict(environment),
        cwd=cwd,
        start_new_session=True,
    )
    try:
        started(process.pid)
        for words in _words_of(process, process.stderr or process.stdout):
            watch(words)
    except BaseException:
        _end(process, grace)
        raise
    return process.returncode


def _words_of(process: subprocess.Popen[bytes], pipe: IO[bytes] | None) -> Iterator[bytes]:
    """What the program says until it ends, and nothing where it says nothing for a while."""
    assert pipe is not None, "one of the two is a pipe"
    with pipe:
        os.set_blocking(pipe.fileno(), False)
        while True:
            ended = process.poll() is not None
            select.select([pipe], [], [], _LOOK_EVERY)
            data: bytes | None = pipe.read(_MAX_READ)  # None: nothing yet; empty: nothing more
            yield data or b""
            if ended and not data:
                return
            if data == b"":
                time.sleep(_LOOK_EVERY)


def _end(process: subprocess.Popen[bytes], grace: float) -> None:
    """End the program and its children, and see them gone."""
    for number, patience in ((signal.SIGTERM, grace), (signal.SIGKILL, None)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)

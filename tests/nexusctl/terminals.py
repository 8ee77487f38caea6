"""``nexusctl`` in a terminal of its own."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from tests.firecracker_release import IN_THE_RIG

PATIENCE = 600.0 if IN_THE_RIG else 120.0


class Terminal:
    """A pseudo-terminal with a program in it."""

    def __init__(self, arguments: tuple[str, ...], env: Mapping[str, str]) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(24, 80)
        self.before = termios.tcgetattr(self.slave)
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "nexusctl", *arguments],
            stdin=self.slave,
            stdout=self.slave,
            stderr=self.slave,
            env=dict(env),
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),  # where its signals come from
        )

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def resize(self, rows: int, cols: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))

    def read_until(self, wanted: bytes) -> None:
        """Read until ``wanted`` has been shown."""
        deadline = time.monotonic() + PATIENCE
        while wanted not in self.seen:
            assert time.monotonic() < deadline, self.seen
            self._read(1.0)

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def ended(self) -> int:
        """The exit code, when it has ended; the terminal is as it was."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            assert time.monotonic() < deadline, self.seen
            self._read(0.1)
        while self._read(0.1):
            pass
        assert termios.tcgetattr(self.slave) == self.before
        return self.process.returncode

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.master)
        os.close(self.slave)

    def _read(self, seconds: float) -> bool:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            self.seen += os.read(self.master, 65536)
        return bool(ready)


@contextmanager
def terminal(*arguments: str, env: Mapping[str, str]) -> Iterator[Terminal]:
    """``nexusctl ARGUMENTS`` in a terminal of 24 rows and 80 columns; killed after the block."""
    made = Terminal(arguments, env)
    try:
        yield made
    finally:
        made.close()

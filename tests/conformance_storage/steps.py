"""Every system call with which storage changes the disk, one by one.

A fault can be put before any of them: the process is killed there, or the disk is full. So a
test goes through an operation step by step without knowing how it works.
"""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
from collections.abc import Callable
from typing import Any

#: What needs space; removing does not.
WRITING = (
    "open",
    "mkdir",
    "truncate",
    "ftruncate",
    "utime",
    "fsync",
    "replace",
    "rename",
)
REMOVING = ("unlink", "rmdir", "fchmod")
_SNAP_DESTROY, _FIEMAP = 0x5000940F, 0xC020660B
_COPIED_AT_ONCE = 64 << 10


class Steps:
    """Counts the steps from 0 and calls ``fault`` before step ``at``."""

    def __init__(self, at: int, fault: Callable[[], None], *, removing: bool) -> None:
        self.at, self._fault, self.removing = at, fault, removing
        self.taken = 0

    @property
    def reached(self) -> bool:
        return self.taken > self.at

    def step(self) -> None:
        self.taken += 1
        if self.taken == self.at + 1:
            self._fault()

    def install(self, setattr: Callable[[Any, str, object], None]) -> None:
        """Stand before the real calls; ``setattr`` may be that of a ``monkeypatch``."""
        for name in WRITING + (REMOVING if self.removing else ()):
            setattr(os, name, self._before(getattr(os, name)))
        setattr(os, "copy_file_range", self._in_parts(os.copy_file_range))
        setattr(os, "pwrite", self._in_pieces(os.pwrite))
        setattr(fcntl, "ioctl", self._ioctl(fcntl.ioctl))
        setattr(subprocess, "run", self._run(subprocess.run))

    def _before(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(*arguments: Any, **options: Any) -> Any:
            if call.__name__ != "open" or arguments[1] & os.O_CREAT:
                self.step()
            return call(*arguments, **options)

        return stepped

    def _in_parts(self, call: Callable[..., int]) -> Callable[..., int]:
        def stepped(source: int, target: int, count: int, *offsets: int) -> int:
            self.step()
            return call(source, target, min(count, _COPIED_AT_ONCE), *offsets)

        return stepped

    def _in_pieces(self, call: Callable[..., int]) -> Callable[..., int]:
        def stepped(fd: int, data: Any, offset: int) -> int:
            self.step()
            return call(fd, data[:_COPIED_AT_ONCE], offset)

        return stepped

    def _ioctl(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def stepped(fd: int, request: int, *arguments: Any) -> Any:
            if request != _FIEMAP and (self.removing or request != _SNAP_DESTROY):
                self.step()
            return call(fd, request, *arguments)

        return stepped

    def _run(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """A tool can be killed with us, before it is done as well."""

        def stepped(command: list[str], **options: Any) -> Any:
            try:
                self.step()
            except OSError as error:
                return subprocess.CompletedProcess(command, 1, "", os.strerror(error.errno))
            if self.removing and self.taken == self.at:
                with subprocess.Popen(command, stdout=subprocess.DEVNULL):
                    self.step()
            return call(command, **options)

        return stepped


def full_disk() -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def kill_me() -> None:
    os.kill(os.getpid(), signal.SIGKILL)

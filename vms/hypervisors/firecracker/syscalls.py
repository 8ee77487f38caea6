"""System calls that this Python has no names for. All raise OSError and need root."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_LIBC = ctypes.CDLL(None, use_errno=True)

# sys/mount.h
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND = 1, 2, 4, 8, 32, 4096
_DETACH, _NOFOLLOW = 2, 8
# linux/sched.h
_NEWNET = 0x40000000


def bind_mount(source: Path, target: Path, *, writable: bool) -> None:
    """Have the file `target` show `source`: no programs, no devices, written only if `writable`."""
    _mount(source, target, _BIND)
    flags = _NOSUID | _NODEV | _NOEXEC | (0 if writable else _RDONLY)
    try:
        # The first call ignores all flags but its own.
        _mount(None, target, _REMOUNT | _BIND | flags)
    except OSError:
        unmount(target)
        raise


def unmount(target: Path) -> None:
    """Take the mount away at once; the kernel drops it when nobody uses it any more."""
    _check(_LIBC.umount2(os.fsencode(target), _DETACH | _NOFOLLOW), str(target))


def enter_network(namespace: Path) -> None:
    """Move this thread, and what it starts from now on, into a network namespace."""
    fd = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _check(_LIBC.setns(fd, _NEWNET), str(namespace))
    finally:
        os.close(fd)


def leave_network() -> None:
    """Move this thread into a new, empty network namespace, which ends with it."""
    _check(_LIBC.unshare(_NEWNET), "network namespace")


def _mount(source: Path | None, target: Path, flags: int) -> None:
    what = None if source is None else os.fsencode(source)
    _check(_LIBC.mount(what, os.fsencode(target), None, ctypes.c_ulong(flags), None), str(target))


def _check(result: int, about: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), about)

"""Files in a directory that belongs to a VMM.

A guest that has broken out of its VM is the VMM, and that owns the root of its jail: any name
there may be a link to elsewhere, a device in place of a file, and another thing a moment later.
All directories above it are ours. So what we use there we first hold by a descriptor that
follows no link and opens nothing, and look at what it is.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from images.files import copy_sparse, whole_file
from nexus_site.core.errors import Broken


@contextmanager
def directory(path: Path) -> Iterator[int]:
    """The directory as a descriptor, so that names in it are looked up there and nowhere else."""
    fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def socket_path(root: Path, name: str) -> Iterator[str]:
    """A short path that leads to this very socket while the block lasts.

    Raises FileNotFoundError, and Broken (code "hostile-vmm") for anything but a socket: what
    we say to a VMM must not reach another program of the host.
    """
    with _held(root, name, stat.S_IFSOCK) as path:
        yield str(path)


def make_fifo(root: Path, name: str, uid: int | None) -> None:
    """Make a FIFO that the VMM, which runs as `uid` (None: as we do), may open."""
    with directory(root) as parent:
        os.mkfifo(name, 0o600, dir_fd=parent)
        if uid is not None:
            os.chown(name, uid, uid, dir_fd=parent, follow_symlinks=False)


def open_fifo(root: Path, name: str) -> int:
    """The reading end, non-blocking.

    Raises FileNotFoundError, and Broken (code "hostile-vmm") for anything but a FIFO.
    """
    with _held(root, name, stat.S_IFIFO) as path:
        return os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)


def take_file(root: Path, name: str, target: Path) -> None:
    """Move a file that the VMM has written to `target`, in a directory of ours; it is ours then.

    Raises FileNotFoundError, and Broken (code "hostile-vmm") for anything but a file.
    """
    with _held(root, name, stat.S_IFREG) as held:
        os.chown(held, os.geteuid(), os.getegid())
        held.chmod(0o600)
        if not _rename(root, name, target):
            with whole_file(target) as temporary:
                copy_sparse(held, temporary)
            remove(root, name)
        elif not os.path.samestat(held.stat(), target.lstat()):
            target.unlink()
            raise _tampered(root / name)


def remove(root: Path, name: str) -> None:
    """Remove the name, whatever it is but a directory. It is no error when there is none."""
    with suppress(FileNotFoundError), directory(root) as parent:
        os.unlink(name, dir_fd=parent)


@contextmanager
def _held(root: Path, name: str, kind: int) -> Iterator[Path]:
    """A path to what bears the name now, whatever that names next; it must be of this kind."""
    with directory(root) as parent:
        fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if stat.S_IFMT(os.fstat(fd).st_mode) != kind:
            raise _tampered(root / name)
        yield Path(f"/proc/self/fd/{fd}")
    finally:
        os.close(fd)


def _rename(root: Path, name: str, target: Path) -> bool:
    """False where the target is on another file system."""
    with directory(root) as parent:
        try:
            os.rename(name, target, src_dir_fd=parent)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            return False
    return True


def _tampered(path: Path) -> Broken:
    return Broken(
        f"The VMM has tampered with “{path.name}”, which is not what it should be.",
        hint="Its guest may have broken out of its VM. Kill the VM and do not trust its drives.",
        code="hostile-vmm",
    )

"""Files that are there whole or not at all, and copies that stay sparse.

A file is written under a temporary name beside its place (``.NAME.RANDOM.part``), flushed to
the disk and renamed. Its writer holds a lock on the temporary file while it works, so that
``sweep`` can tell what a killed process left behind from what another one is writing now.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import heapq
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from nexus_site.core.errors import Conflict, Retryable, as_nexus_error

PART_SUFFIX = ".part"

# Told after every step of a long copy: bytes done, bytes in all.
Progress = Callable[[int, int], None]

_COPY_STEP = 32 << 20
_READ_STEP = 1 << 20
_COMPARE_STEP = 4096
# What the kernel answers where copy_file_range has no way between these two files.
_NO_COPY_RANGE = frozenset(
    {errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL, errno.EPERM, errno.ETXTBSY}
)


def no_progress(_done: int, _total: int) -> None:
    """The progress that nobody listens to."""


@contextlib.contextmanager
def whole_file(path: Path, mode: int = 0o600) -> Iterator[Path]:
    """An empty temporary file to fill; becomes ``path``, on the disk, when the block ends well.

    Whatever goes wrong, the temporary file is gone and ``path`` is what it was before.
    A full disk is ``Retryable`` with the code ``disk-full``; other system errors are ``Broken``.
    """
    with system_errors():
        temporary, lock = _locked_part(path)
        try:
            yield temporary
            os.fchmod(lock, mode)
            os.fsync(lock)
            temporary.replace(path)
            sync_directory(path.parent)
        finally:
            temporary.unlink(missing_ok=True)
            os.close(lock)


@contextlib.contextmanager
def scratch_directory(parent: Path) -> Iterator[Path]:
    """A private temporary directory in ``parent``, removed with all it holds afterwards."""
    with system_errors():
        scratch, lock = locked_directory(parent / "scratch", lambda path: path.mkdir(0o700))
        try:
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            os.close(lock)


def locked_directory(path: Path, make: Callable[[Path], object]) -> tuple[Path, int]:
    """A new temporary directory for ``path`` and the descriptor that holds its lock."""
    while True:
        part = part_name(path)
        make(part)
        with contextlib.suppress(FileNotFoundError):
            lock = os.open(part, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock, fcntl.LOCK_EX)
            if part.exists():  # else a sweep came before the lock
                return part, lock
            os.close(lock)


def sweep(directory: Path) -> list[Path]:
    """Remove the temporary files and directories in ``directory`` that no process works on.

    Returns what was removed. Safe at any time: what is being written is locked and stays.
    """
    removed = []
    for part in _parts(directory):
        with contextlib.suppress(FileNotFoundError), _lock_of_nobody(part) as ours:
            if ours:
                shutil.rmtree(part) if part.is_dir() else part.unlink()
                removed.append(part)
    return removed


def abandoned(directory: Path) -> list[Path]:
    """The temporary files and directories that ``sweep`` would remove."""
    found = []
    for part in _parts(directory):
        with contextlib.suppress(FileNotFoundError), _lock_of_nobody(part) as ours:
            if ours:
                found.append(part)
    return found


def is_part(path: Path) -> bool:
    """Whether this is the name of something temporary."""
    return path.name.startswith(".") and path.name.endswith(PART_SUFFIX)


def move_file(source: Path, target: Path, mode: int, progress: Progress = no_progress) -> None:
    """Move a file into its place, on the disk; to another file system by a sparse copy."""
    with system_errors():
        try:
            with source.open("rb") as file:
                os.fchmod(file.fileno(), mode)
                os.fsync(file.fileno())
            source.replace(target)
            sync_directory(target.parent)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with whole_file(target, mode) as temporary:
                copy_sparse(source, temporary, progress)
            source.unlink()


def copy_sparse(source: Path, target: Path, progress: Progress = no_progress) -> None:
    """Make ``target`` (an existing file) equal to ``source``, holes staying holes.

    The kernel copies where it can (and shares the blocks where the file system can); else
    the data goes through a buffer. Raises ``OSError`` as it comes: call it in ``whole_file``.
    """
    with source.open("rb") as reader, target.open("r+b") as writer:
        source_fd, target_fd = reader.fileno(), writer.fileno()
        size = os.fstat(source_fd).st_size
        os.ftruncate(target_fd, 0)
        os.ftruncate(target_fd, size)
        copy_data(source_fd, target_fd, size, progress)
        if os.fstat(source_fd).st_size != size:
            raise Conflict(f"{source.name} changed its size while it was copied.")
    progress(size, size)


def copy_data(source: int, target: int, size: int, progress: Progress = no_progress) -> None:
    """Copy the first ``size`` bytes, without the holes, to where they are in the source."""
    for start, end in data_ranges(source, size):
        while start < end:
            start += _copy_step(source, target, start, min(_COPY_STEP, end - start))
            progress(start, size)


def copy_ranges(source: Path, target: Path, ranges: Iterable[tuple[int, int]]) -> None:
    """Copy these (start, end) parts of a file to where they are in another one of its size."""
    with source.open("rb") as reader, target.open("r+b") as writer:
        for start, end in ranges:
            at = start
            while at < end:
                step = min(_COPY_STEP, end - at)
                at += _copy_step(reader.fileno(), writer.fileno(), at, step)


def differing_ranges(first: Path, second: Path) -> list[tuple[int, int]]:
    """Where two files differ: (start, end) pairs in order, of whole blocks.

    Raises ``Conflict`` unless they have one size.
    """
    found: list[tuple[int, int]] = []
    with first.open("rb") as one, second.open("rb") as other:
        fds = one.fileno(), other.fileno()
        size, others = (os.fstat(fd).st_size for fd in fds)
        if size != others:
            raise Conflict(f"{first.name} has {size} bytes, {second.name} has {others}.")
        at = 0
        for start, end in heapq.merge(*(data_ranges(fd, size) for fd in fds)):
            at = max(at, start // _COMPARE_STEP * _COMPARE_STEP)
            while at < end:
                here, there = (os.pread(fd, _COMPARE_STEP, at) for fd in fds)
                if here != there:
                    joined = found.pop()[0] if found and found[-1][1] == at else at
                    found.append((joined, at + len(here)))
                at += _COMPARE_STEP
    return found


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file's content, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _copy_step(source: int, target: int, offset: int, length: int) -> int:
    """Copy up to ``length`` bytes at ``offset``; how many were copied, never 0."""
    try:
        copied = os.copy_file_range(source, target, length, offset, offset)
    except OSError as error:
        if error.errno not in _NO_COPY_RANGE:
            raise
        copied = 0
    return copied or _copy_through_buffer(source, target, offset, length)


def _copy_through_buffer(source: int, target: int, offset: int, length: int) -> int:
    data = os.pread(source, min(length, _READ_STEP), offset)
    if not data:
        raise Conflict("The file became shorter while it was copied.")
    written = 0
    while written < len(data):
        written += os.pwrite(target, data[written:], offset + written)
    return written


def data_ranges(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where a file has data: (start, end) pairs in order; one for all where nobody can tell."""
    offset = 0
    while offset < size:
        try:
            start = os.lseek(fd, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # nothing but a hole up to the end
                return
            if error.errno != errno.EINVAL:
                raise
            yield offset, size
            return
        offset = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        yield start, offset


def part_name(path: Path) -> Path:
    """A new name for what is to become ``path``; ``sweep`` knows it by its form."""
    return path.with_name(f".{path.name}.{secrets.token_hex(6)}{PART_SUFFIX}")


def _locked_part(path: Path) -> tuple[Path, int]:
    """A new temporary file and the descriptor that holds its lock."""
    while True:
        part = part_name(path)
        lock = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
        if os.fstat(lock).st_nlink:  # else a sweep came between the two lines above
            return part, lock
        os.close(lock)


def _parts(directory: Path) -> list[Path]:
    return sorted(directory.glob(f".*{PART_SUFFIX}"))


@contextlib.contextmanager
def _lock_of_nobody(part: Path) -> Iterator[bool]:
    """Whether the lock of ``part`` was free; it is ours inside the block, then."""
    fd = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield True
    except BlockingIOError:
        yield False
    finally:
        os.close(fd)


def sync_directory(directory: Path) -> None:
    """Flush the names in a directory to the disk."""
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def require_room(directory: Path, needed: int, what: str) -> None:
    """Raise ``Retryable`` (code ``disk-full``) unless so many bytes are free on its disk.

    ``what`` is what they are needed for.
    """
    free = shutil.disk_usage(directory).free
    if needed > free:
        raise Retryable(
            f"The disk is full: {what} needs {needed / 1e6:,.1f} MB, and {free / 1e6:,.1f} MB "
            f"are free ({directory}).",
            hint="Free some space there, then try again.",
            code="disk-full",
        )


@contextlib.contextmanager
def system_errors() -> Iterator[None]:
    """System errors inside the block leave it as one of the kinds for people."""
    try:
        yield
    except OSError as error:
        raise as_nexus_error(error) from error

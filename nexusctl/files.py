"""Files of this machine that go to the server, and those that come from it."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from nexusctl.errors import Failure

#: A directory goes as an archive that keeps all that a root file system may have, and that is
#: the same the next time: without the times at which somebody read it, and without tar's pid.
_TAR = (
    *("tar", "--create", "--file=-", "--sort=name", "--numeric-owner"),
    *("--format=posix", "--xattrs", "--acls", "--sparse"),
    "--pax-option=exthdr.name=%d/PaxHeaders/%f,delete=atime,delete=ctime",
)


@contextmanager
def source(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file's bytes and size; of a directory an archive, whose size nobody knows before.

    ``-`` is the standard input.
    """
    if str(path) == "-":
        yield sys.stdin.buffer, _size(sys.stdin.buffer)
        return
    if path.is_dir():
        with _archive(path) as archive:
            yield archive, None
        return
    with _opened(path, "rb") as file:
        yield file, _size(file)


def _size(file: BinaryIO) -> int | None:
    """How many bytes are still to come; None of a pipe."""
    status = os.fstat(file.fileno())
    return status.st_size - file.tell() if stat.S_ISREG(status.st_mode) else None


@contextmanager
def sink(path: Path) -> Iterator[BinaryIO]:
    """A file to write (``-``: the standard output); there whole or not at all."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    if path.is_dir():
        raise Failure(f"{path} is a directory.", hint="Name the file to write: --output FILE")
    part = path.with_name(f".{path.name}.part")
    with _opened(part, "wb", shown=path) as file:
        try:
            yield file
            file.close()  # what is still to be written may not fit either
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def _archive(path: Path) -> Iterator[BinaryIO]:
    command = [*_TAR, f"--directory={path}", "."]
    try:
        tar = subprocess.Popen(command, stdout=subprocess.PIPE)
    except OSError as error:
        raise Failure("tar is not installed here; it makes an archive of a directory.") from error
    with tar:
        yield cast("BinaryIO", _Whole(tar, path))


class _Whole:
    """What tar writes; it ends in a ``Failure`` rather than in half an archive."""

    def __init__(self, tar: subprocess.Popen[bytes], path: Path) -> None:
        self._tar, self._path = tar, path

    def read(self, size: int) -> bytes:
        assert self._tar.stdout is not None, "it is a pipe"
        data = self._tar.stdout.read(size)
        if not data and self._tar.wait() != 0:
            raise Failure(f"tar could not read all of {self._path}.")
        return data


def _opened(path: Path, mode: str, shown: Path | None = None) -> BinaryIO:
    try:
        return cast("BinaryIO", path.open(mode))
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Failure(f"{shown or path}: {reason}.") from error

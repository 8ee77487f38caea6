"""Files of this machine that go to the server, and those that come from it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

from nexusctl.errors import Failure

#: A directory goes as an archive that keeps all that a root file system may have.
_TAR = ("tar", "--create", "--file=-", "--numeric-owner", "--xattrs", "--acls", "--sparse")


@contextmanager
def source(path: Path) -> Iterator[tuple[BinaryIO, int | None]]:
    """A file's bytes and size; of a directory an archive, whose size nobody knows before."""
    if not path.is_dir():
        with path.open("rb") as file:
            yield file, path.stat().st_size
        return
    command = [*_TAR, "--sort=name", f"--directory={path}", "."]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as tar:
        yield cast("BinaryIO", tar.stdout), None
        if tar.wait() != 0:
            raise Failure(f"tar could not read all of {path}.")


@contextmanager
def sink(path: Path) -> Iterator[BinaryIO]:
    """A file to write (``-``: the standard output); there whole or not at all."""
    if str(path) == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)

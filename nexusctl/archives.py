"""Directories as archives (tar) that come from VMs and go to them, while they stream.

What comes is a guest's and may be anything: names are walked from an open directory without ever
following a link, headers are bounded, and what is no file, directory or symbolic link is left out.
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from nexusctl.errors import Failure
from nexusctl.output import visible

BLOCK = 512
PIECE = 256 * 1024
MAX_LONG = 64 * 1024  # bytes of a name, a link's target or a header of pax
KEPT_MODE = 0o1777  # nobody becomes somebody else by what was copied
_LONG = {tarfile.GNUTYPE_LONGNAME: "name", tarfile.GNUTYPE_LONGLINK: "linkname"}
_PAX = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW

Read = Callable[[int], bytes]


@dataclass
class Counted:
    """What has gone by: entries, bytes of files, and entries that were left out."""

    entries: int = 0
    bytes: int = 0
    skipped: int = 0


# Packing


def packed(root: Path, counted: Counted) -> Iterator[bytes]:
    """What is in the directory ``root`` as an archive. Raises ``Failure``."""
    try:
        for path, name in _walk(root, ""):
            yield from _packed_one(path, name, counted)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Failure(f"{visible(str(error.filename or root))}: {reason}.") from error
    yield bytes(2 * BLOCK)


def _walk(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    """Everything in ``root``, directories before what is in them, and its name in the archive."""
    with os.scandir(root) as found:
        entries = sorted(found, key=lambda entry: entry.name)
    for entry in entries:
        inner = f"{name}/{entry.name}" if name else entry.name
        yield Path(entry.path), inner
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path), inner)


def _packed_one(path: Path, name: str, counted: Counted) -> Iterator[bytes]:
    status = path.lstat()
    info = tarfile.TarInfo(name)
    info.mode, info.mtime = stat.S_IMODE(status.st_mode) & KEPT_MODE, int(status.st_mtime)
    if stat.S_ISREG(status.st_mode):
        yield from _packed_file(path, info)
    elif stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
        yield _header(info)
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, os.readlink(path)  # noqa: PTH115 - as it is
        yield _header(info)
    else:
        counted.skipped += 1


def _packed_file(path: Path, info: tarfile.TarInfo) -> Iterator[bytes]:
    with path.open("rb") as file:
        info.size = left = os.fstat(file.fileno()).st_size
        yield _header(info)
        while left:
            data = file.read(min(PIECE, left))
            if not data:
                raise Failure(f"{visible(str(path))} was cut while it was read.")
            left -= len(data)
            yield data
    yield bytes(-info.size % BLOCK)


def _header(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape")


# Unpacking


def unpack(read: Read, into: Path, counted: Counted) -> None:
    """Make what an archive holds in the directory ``into``, and nowhere else.

    ``read`` gives at most so many bytes, none at the end. Raises ``Failure`` for what is no whole
    archive, and for names that lead elsewhere; what was made before stays.
    """
    source = _Source(read)
    root = os.open(into, os.O_RDONLY | os.O_DIRECTORY)
    try:
        while (info := source.next_entry()) is not None:
            if info.isreg() or info.isdir() or info.issym():
                _make(root, info, source)
                counted.entries += 1
                counted.bytes += info.size if info.isreg() else 0
            else:
                counted.skipped += 1
            source.skip_rest()
    finally:
        os.close(root)


class _Source:
    """The entries of an archive, one after the other."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._left = self._padding = 0

    def next_entry(self) -> tarfile.TarInfo | None:
        """The next one with its real names; None after the last."""
        names: dict[str, str] = {}
        while True:
            block = self._exactly(BLOCK)
            try:
                info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                return None
            except tarfile.HeaderError as error:
                raise _no_archive() from error
            if info.size < 0 or info.type in _PAX:
                raise _no_archive()
            if info.type not in _LONG:
                break
            if info.size > MAX_LONG:
                raise _no_archive()
            text = self._exactly(info.size + -info.size % BLOCK)[: info.size]
            names[_LONG[info.type]] = os.fsdecode(text.rstrip(b"\0"))
        for key, value in names.items():
            setattr(info, key, value)
        self._left = info.size if info.isreg() else 0
        self._padding = -self._left % BLOCK
        return info

    def content(self) -> Iterator[bytes]:
        while self._left:
            data = self._some(min(PIECE, self._left))
            self._left -= len(data)
            yield data

    def skip_rest(self) -> None:
        for _ in self.content():
            pass
        self._exactly(self._padding)
        self._padding = 0

    def _some(self, most: int) -> bytes:
        data = self._read(most)
        if not data:
            raise Failure("The archive from the VM breaks off.")
        return data

    def _exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            data += self._some(count - len(data))
        return bytes(data)


def _make(root: int, info: tarfile.TarInfo, source: _Source) -> None:
    parts = [part for part in info.name.split("/") if part not in ("", ".")]
    if ".." in parts or info.name.startswith("/") or "\0" in info.name:
        raise Failure(f"The VM sent a name that leads elsewhere: “{visible(info.name)}”.")
    if not parts:
        return
    try:
        with _parent(root, parts[:-1]) as directory:
            _make_one(directory, parts[-1], info, source)
    except OSError as error:
        reason = (error.strerror or type(error).__name__).lower()
        raise Failure(f"{visible(info.name)}: {reason}.") from error


def _make_one(directory: int, name: str, info: tarfile.TarInfo, source: _Source) -> None:
    mode = info.mode & KEPT_MODE
    if info.isdir():
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=directory)
        made = os.open(name, _DIRECTORY, dir_fd=directory)  # not one that a link leads to
        os.fchmod(made, mode | 0o700)
        os.close(made)
        return
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)
    if info.issym():
        os.symlink(info.linkname, name, dir_fd=directory)
        return
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
    with os.fdopen(os.open(name, flags, 0o600, dir_fd=directory), "wb") as file:
        for data in source.content():
            file.write(data)
        os.fchmod(file.fileno(), mode)


@contextmanager
def _parent(root: int, parts: list[str]) -> Iterator[int]:
    """The directory at ``parts``, whose missing parts are made; no link is followed."""
    directory = os.dup(root)
    try:
        for part in parts:
            with suppress(FileExistsError):
                os.mkdir(part, dir_fd=directory)
            following = os.open(part, _DIRECTORY, dir_fd=directory)
            os.close(directory)
            directory = following
        yield directory
    finally:
        os.close(directory)


def _no_archive() -> Failure:
    return Failure("What the VM sent is no archive.")

"""Look into an image or a tree: its files, its distribution, its packages, its agent.

Nothing is mounted and only what is asked for is read, so an image of many gigabytes answers at
once. Content is a stranger's: links are followed inside the file system only, every answer is
bounded, and texts lose what a terminal could take for a command.
"""

from __future__ import annotations

import abc
import contextlib
import hashlib
import io
import posixpath
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self

from guest_agent.binary import agent_digest, agent_version
from guest_agent.init_integration import find_init
from images.entries import MAX_PATH, Entry, Kind, decoded, encoded
from images.formats.disks import Disk, open_disk
from images.formats.ext4_reader import ROOT_INODE, Ext4, Inode
from images.system_files import apk_packages, dpkg_packages, os_release, shown
from images.trees import Tree
from nexus_site.core.errors import Invalid, NexusError, NotFound

AGENT = "usr/bin/nexus-agent"
METADATA = "etc/nexus/image.yaml"
MAX_LISTED = 10_000

_MAX_LINKS = 40  # as Linux
_MAX_DIRECTORY_BLOCKS = 16_384  # that one question may lead through
_MAX_AGENT, _MAX_TEXT, _MAX_DATABASE = 128 << 20, 64 << 10, 64 << 20
_MAX_PACKAGES = 100_000
_CHUNK = 1 << 20
_ZEROS = bytes(_CHUNK)

_OS_RELEASE = ("etc/os-release", "usr/lib/os-release")
_DPKG, _DPKG_PARTS = "var/lib/dpkg/status", "var/lib/dpkg/status.d"
_APK = ("lib/apk/db/installed", "usr/lib/apk/db/installed")
_INITS = (
    *("usr/lib/systemd/systemd", "lib/systemd/systemd"),
    *("sbin/openrc", "usr/sbin/openrc", "usr/bin/openrc", "etc/inittab"),
)

Packages = list[tuple[str, str]]


class AgentInfo(NamedTuple):
    """The agent in an image: ``version`` is empty where nothing tells it."""

    version: str
    digest: str


class RootView(abc.ABC):
    """A root file system to look at. Close it, or use it as a context manager.

    Paths may begin with a slash. ``NotFound`` where there is nothing, ``Invalid`` for what is
    not what the question supposes, is too large, or damaged.
    """

    @abc.abstractmethod
    def entry(self, path: str, *, follow: bool = False) -> Entry:
        """One entry; links are followed on the way to it, the last one only with ``follow``."""

    @abc.abstractmethod
    def list(self, path: str = "", limit: int = MAX_LISTED) -> list[Entry]:
        """The first ``limit`` entries of a directory by name; their paths are whole."""

    @abc.abstractmethod
    def open(self, path: str) -> BinaryIO:
        """A file's bytes, links followed."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give back what it holds."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def read(self, path: str, limit: int) -> bytes:
        """All bytes of a file, links followed; ``Invalid`` where they are more than ``limit``."""
        with self.open(path) as file:
            data = file.read(limit + 1)
        if len(data) > limit:
            raise Invalid(f"/{path.lstrip('/')} has more than {limit} bytes.", code="too-large")
        return data

    def os_release(self) -> dict[str, str]:
        """The variables of os-release(5); none where it is missing."""
        for path in _OS_RELEASE:
            with contextlib.suppress(NotFound):
                return os_release(self._text(path, _MAX_TEXT))
        return {}

    def packages(self) -> Packages:
        """(name, version) of what dpkg or apk installed, in order of names."""
        found: set[tuple[str, str]] = set()
        for path in (_DPKG, *self._parts_of_dpkg()):
            with contextlib.suppress(NotFound):
                found.update(dpkg_packages(self._text(path, _MAX_DATABASE)))
        for path in _APK:
            with contextlib.suppress(NotFound):
                found.update(apk_packages(self._text(path, _MAX_DATABASE)))
        return sorted(found)[:_MAX_PACKAGES]

    def agent(self) -> AgentInfo | None:
        """The agent in the image; None without one."""
        digest = hashlib.sha256()
        try:
            with self.open(AGENT) as file:
                for _ in range(_MAX_AGENT // _CHUNK):
                    digest.update(file.read(_CHUNK))
        except NotFound:
            return None
        return AgentInfo(self._agent_version(digest.hexdigest()), digest.hexdigest())

    def init(self) -> str:
        """systemd, openrc, busybox or none: which init boots it."""
        return find_init([path for path in _INITS if self._has(path)]) or "none"

    def _agent_version(self, digest: str) -> str:
        with contextlib.suppress(NexusError):
            for line in self._text(METADATA, _MAX_TEXT).splitlines():
                if line.startswith("agent_version:"):
                    return shown(line.partition(":")[2])
        with contextlib.suppress(NexusError):  # this host's own may not have been built
            return agent_version() if digest == agent_digest() else ""
        return ""

    def _parts_of_dpkg(self) -> Sequence[str]:
        """Images without a package manager keep one file for each package."""
        with contextlib.suppress(NotFound):
            files = self.list(_DPKG_PARTS)
            return [found.path for found in files if not found.path.endswith(".md5sums")]
        return []

    def _has(self, path: str) -> bool:
        with contextlib.suppress(NotFound):
            return bool(self.entry(path))
        return False

    def _text(self, path: str, limit: int) -> str:
        return self.read(path, limit).decode("utf-8", "replace")


class ImageView(RootView):
    """The ext4 file system on a disk image; takes over the disk."""

    def __init__(self, disk: Disk) -> None:
        self._disk, self._ext4 = disk, Ext4(disk)
        self._names = lru_cache(maxsize=16)(self._names_uncached)

    def close(self) -> None:
        self._disk.close()

    def entry(self, path: str, *, follow: bool = False) -> Entry:
        return self._ext4.entry(*self._find(path, follow=follow))

    def list(self, path: str = "", limit: int = MAX_LISTED) -> list[Entry]:
        found, inode = self._find(path)
        if inode.kind is not Kind.DIRECTORY:
            raise Invalid(f"/{found} is a {inode.kind}, not a directory.")
        names = self._names(inode)
        return [
            self._ext4.entry(posixpath.join(found, decoded(name)), self._ext4.inode(names[name]))
            for name in sorted(names)[:limit]
            if found or name != b"lost+found"
        ]

    def open(self, path: str) -> BinaryIO:
        found, inode = self._find(path)
        if inode.kind is not Kind.FILE:
            raise Invalid(f"/{found} is a {inode.kind}, not a file.")
        ext4 = Ext4(self._disk)  # its own, so that what is asked meanwhile does not matter
        ext4.begin(2 * ext4.size_bytes // ext4.block_size)
        return io.BufferedReader(_Stream(_without_holes(ext4, inode)), _CHUNK)

    def _find(self, path: str, *, follow: bool = True) -> tuple[str, Inode]:
        """The inode of a path, and its path without links."""
        if len(encoded(path)) > MAX_PATH:
            raise Invalid(f"A path has at most {MAX_PATH} bytes.")
        self._ext4.begin(_MAX_DIRECTORY_BLOCKS)
        todo = [part for part in reversed(path.split("/")) if part not in ("", ".")]
        way = [("", self._ext4.inode(ROOT_INODE))]
        links = 0
        while todo:
            part = todo.pop()
            if part == "..":
                del way[max(len(way) - 1, 1) :]  # the root is its own parent
                continue
            name, inode = self._child(*way[-1], part)
            if inode.kind is not Kind.SYMLINK or not (follow or todo):
                way.append((name, inode))
                continue
            links += 1
            if links > _MAX_LINKS:
                raise Invalid(f"Too many symbolic links on the way to {path}.")
            target = decoded(self._ext4.target(inode))
            if target.startswith("/"):
                del way[1:]
            todo += [part for part in reversed(target.split("/")) if part not in ("", ".")]
        return way[-1]

    def _child(self, path: str, directory: Inode, name: str) -> tuple[str, Inode]:
        found = posixpath.join(path, name)
        number = None
        if directory.kind is Kind.DIRECTORY:
            number = self._names(directory).get(encoded(name))
        if number is None:
            raise NotFound(f"The image has no /{found}.")
        return found, self._ext4.inode(number)

    def _names_uncached(self, directory: Inode) -> dict[bytes, int]:
        return dict(self._ext4.names(directory))


class TreeView(RootView):
    """A tree that is not packed yet."""

    def __init__(self, tree: Tree) -> None:
        self._tree = tree

    def close(self) -> None:
        pass  # a tree holds nothing open

    def entry(self, path: str, *, follow: bool = False) -> Entry:
        if follow:
            return self._tree.entry(self._tree.resolve(path))
        parent, _, name = path.rstrip("/").rpartition("/")
        return self._tree.entry(posixpath.join(self._tree.resolve(parent), name))

    def list(self, path: str = "", limit: int = MAX_LISTED) -> list[Entry]:
        directory = self._tree.entry(self._tree.resolve(path))
        if directory.kind is not Kind.DIRECTORY:
            raise Invalid(f"/{directory.path} is a {directory.kind}, not a directory.")
        inside = (self._tree.entry(found) for found in self._tree.paths(directory.path))
        children = [found for found in inside if found.path and found.parent == directory.path]
        return children[:limit]

    def open(self, path: str) -> BinaryIO:
        return self._tree.open(path)


def open_image(path: Path) -> ImageView:
    """Look at the image (raw ext4, or qcow2 with one) in the file at ``path``."""
    disk = open_disk(path)
    try:
        return ImageView(disk)
    except BaseException:
        disk.close()
        raise


class _Stream(io.RawIOBase):
    """Chunks as a file to read once."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks, self._chunk = chunks, b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._chunk:
            self._chunk = next(self._chunks, b"")
        part = self._chunk[: len(buffer)]
        buffer[: len(part)] = part
        self._chunk = self._chunk[len(part) :]
        return len(part)


def _without_holes(ext4: Ext4, inode: Inode) -> Iterator[bytes]:
    """All bytes of a file in chunks of up to a mebibyte."""
    at = 0
    for offset, data in ext4.pieces(inode):
        yield from _zeros(offset - at)
        yield data
        at = offset + len(data)
    yield from _zeros(inode.size - at)


def _zeros(count: int) -> Iterator[bytes]:
    while count > 0:
        yield _ZEROS[:count]
        count -= _CHUNK

"""A kernel's source on this machine's disk, unpacked from a tarball that may be anything.

Files are written as they come, links only after all of them: nothing is ever written through
one. What is no file, directory or link, or leads out of the tree, is refused.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path, PurePosixPath

from images.entries import Entry, Kind
from images.files import system_errors
from images.formats.archives import opened
from images.formats.compression import too_large
from images.formats.tar_reader import TarArchive
from images.trees import Item
from nexus_site.core.errors import Invalid

MAX_ENTRIES = 250_000  # Linux 6.18 has some 95,000
MAX_BYTES = 8 << 30  # and 1.6 GB
_WATCH_EVERY = 500
_NEEDED = ("Makefile", "Kconfig", "arch/x86", "init/main.c")
_VERSION_LINE = re.compile(
    r"^(VERSION|PATCHLEVEL|SUBLEVEL|EXTRAVERSION) *= *(\S*) *$", re.MULTILINE
)
_VERSION = re.compile(r"[0-9]{1,3}\.[0-9]{1,3}\.[0-9]{1,4}[0-9A-Za-z.+_-]{0,30}")


def unpack(tarball: Path, directory: Path, watch: Callable[[int], None]) -> None:
    """Unpack a tarball, compressed or not, into ``directory``, which is made.

    The one directory at its top is left away. ``watch`` is told the number of entries so far.
    Raises ``Invalid``: ``archive-damaged``, ``archive-too-large``, ``unsafe-entry``, or
    ``not-a-kernel`` where it has no single directory at its top; ``Retryable`` (``disk-full``).
    """
    with system_errors(), opened(tarball, MAX_BYTES) as stream:
        directory.mkdir(mode=0o700)
        top, links, written = "", list[Entry](), 0
        for count, item in enumerate(TarArchive(stream)):
            if count % _WATCH_EVERY == 0:
                watch(count)
            if count > MAX_ENTRIES:
                raise too_large(f"it has more than {MAX_ENTRIES} entries")
            entry = item.entry
            if not entry.path:
                continue
            first, _, rest = entry.path.partition("/")
            top = top or first
            if first != top or (not rest and entry.kind is not Kind.DIRECTORY):
                raise not_a_kernel("it has more than one directory at its top")
            if entry.kind is Kind.SYMLINK:
                links.append(entry)
            else:
                written += _write(item, directory / rest)
        for entry in links:
            _link(entry, directory / entry.path.partition("/")[2], top)


def version_of(source: Path) -> str:
    """The version that the source's Makefile says: 6.1.192. ``Invalid`` for no kernel."""
    if lost := [name for name in _NEEDED if not (source / name).exists()]:
        raise not_a_kernel(f"it has no {', no '.join(lost)}")
    head = (source / "Makefile").read_bytes()[:4096].decode(errors="replace")
    found: dict[str, str] = dict(_VERSION_LINE.findall(head))
    numbers = ".".join(found.get(name, "") for name in ("VERSION", "PATCHLEVEL", "SUBLEVEL"))
    version = numbers + found.get("EXTRAVERSION", "")
    if not _VERSION.fullmatch(version):
        raise not_a_kernel("its Makefile does not say which version it is")
    return version


def not_a_kernel(reason: str) -> Invalid:
    return Invalid(
        f"The tarball holds no kernel source: {reason}.",
        hint="Give what kernel.org calls linux-VERSION.tar.xz, or Debian's linux-source tarball.",
        code="not-a-kernel",
    )


def _write(item: Item, path: Path) -> int:
    """Put a file or directory in its place; the bytes written."""
    entry, written = item.entry, 0
    if entry.kind is Kind.DIRECTORY:
        path.mkdir(exist_ok=True, parents=True)
        return 0
    if entry.kind is not Kind.FILE or item.link_to is not None:
        raise _unsafe(entry, "it is neither file, directory nor symbolic link")
    path.parent.mkdir(exist_ok=True, parents=True)
    with path.open("wb") as file:
        for offset, data in item.pieces:
            file.seek(offset)
            written += file.write(data)
        file.truncate(entry.size)
    path.chmod(0o755 if entry.mode & 0o100 else 0o644)
    return written


def _link(entry: Entry, path: Path, top: str) -> None:
    """A link to something in the tree, told without asking the disk."""
    place = [part for part in PurePosixPath(entry.path).parent.parts if part != top]
    for part in PurePosixPath(entry.target).parts:
        if part == "/" or (part == ".." and not place):
            raise _unsafe(entry, "it leads out of the tarball")
        if part == "..":
            place.pop()
        else:
            place.append(part)
    path.parent.mkdir(exist_ok=True, parents=True)
    path.symlink_to(entry.target)


def _unsafe(entry: Entry, reason: str) -> Invalid:
    return Invalid(
        f"The tarball cannot be unpacked: {reason}: {entry.path[:200]}", code="unsafe-entry"
    )

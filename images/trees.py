"""A root file system as a list of entries and a heap of contents.

A ``Tree`` lives in one directory: ``manifest.jsonl`` holds names, owners, modes and all other
metadata, ``content/`` holds the files' bytes under numbers. No name from an archive is ever a
name on this machine, so nothing can escape, and no entry needs a privilege to be kept.

Trees are filled from a *source*: any iterable of ``Item`` (an ext4 image, an archive).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from images.entries import Entry, Kind, encoded, normal_path
from images.files import copy_sparse, whole_file
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound, as_nexus_error

MAX_ENTRIES = 1_000_000  # a bomb ends at these two
MAX_BYTES = 256 << 30  # of all contents together

_FORMAT = {"format": "nexus-tree", "version": 1}
_CONTENT_NAME = re.compile(r"[0-9a-f]{8}\Z")
_MAX_SYMLINKS = 40  # as Linux
_ZEROS = bytes(1 << 20)


@dataclass(frozen=True, slots=True)
class Item:
    """What a source says about one entry.

    ``pieces`` are the file's data as (offset, bytes), consumed once; what they leave out is
    zeros. With ``link_to`` the entry is one more name of that file, and only ``path`` counts.
    """

    entry: Entry
    pieces: Iterable[tuple[int, bytes]] = ()
    link_to: str | None = None


class Tree:
    """The entries of one root file system, in order, with their contents.

    Paths may be written with or without a leading slash; both mean the tree's root. Changes
    are kept by ``save``. One writer at a time.
    """

    def __init__(self, directory: Path, entries: Iterable[Entry] = ()) -> None:
        self.directory = directory
        self.contents = directory / "content"  # bytes of files, named as in ``Entry.content``
        self._entries = {entry.path: entry for entry in entries}
        self._entries.setdefault("", Entry("", Kind.DIRECTORY, 0o755))
        self._uses = Counter(entry.content for entry in self._entries.values() if entry.content)
        # Contents that no manifest has named yet (a killed process made them) are kept clear of.
        names = [path.name for path in self.contents.iterdir()]
        self._next_content = 1 + max((int(name, 16) for name in names), default=0)

    @classmethod
    def create(cls, directory: Path) -> Tree:
        """A tree with nothing but its root, in a new or empty directory; else ``Conflict``."""
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            if any(directory.iterdir()):
                raise Conflict(f"{directory.name} is not empty: a tree starts in a new directory.")
            (directory / "content").mkdir(mode=0o700)
        except OSError as error:
            raise as_nexus_error(error) from error
        return cls(directory)

    @classmethod
    def load(cls, directory: Path) -> Tree:
        """The tree that was saved in ``directory``."""
        manifest = directory / "manifest.jsonl"
        if not manifest.is_file():
            raise NotFound(f"There is no tree in {directory.name}.")
        try:
            with manifest.open(encoding="ascii") as lines:
                if json.loads(next(lines)) != _FORMAT:
                    raise ValueError("another format")
                entries = [Entry.from_json(json.loads(line)) for line in lines]
        except (ValueError, TypeError, KeyError, StopIteration) as error:
            raise Broken(f"The manifest of {directory.name} cannot be read: {error}.") from error
        if any(entry.content and not _CONTENT_NAME.match(entry.content) for entry in entries):
            raise Broken(f"The manifest of {directory.name} names a content that cannot be.")
        tree = cls(directory, entries)
        for entry in entries:
            tree._check_place(entry)
        return tree

    def save(self) -> None:
        """Write the manifest, whole or not at all; then drop the contents that it does not name.

        A process that is killed before leaves the tree as it was saved last.
        """
        with (
            whole_file(self.directory / "manifest.jsonl") as temporary,
            temporary.open("w", encoding="ascii") as out,
        ):
            out.write(json.dumps(_FORMAT) + "\n")
            out.writelines(json.dumps(entry.to_json()) + "\n" for entry in self)
        for content in self.contents.iterdir():
            if content.name not in self._uses:
                content.unlink()

    def __iter__(self) -> Iterator[Entry]:
        """All entries, each after its directory, in the order of their names."""
        for path in sorted(self._entries, key=_sort_key):
            yield self._entries[path]

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, path: str) -> bool:
        return normal_path(path) in self._entries

    def paths(self, under: str = "") -> list[str]:
        """The paths of ``under`` and of everything in it, in order."""
        base = normal_path(under)
        found = [path for path in self._entries if _is_under(path, base)]
        return sorted(found, key=_sort_key)

    def entry(self, path: str) -> Entry:
        """The entry itself (a symbolic link is not followed); ``NotFound`` without one."""
        found = self._entries.get(normal_path(path))
        if found is None:
            raise NotFound(f"The root file system has no {path}.")
        return found

    def resolve(self, path: str) -> str:
        """The path with symbolic links followed inside the tree, as a chroot would.

        Parts that do not exist are kept. ``Invalid`` for links that go round in a circle.
        """
        todo = path.split("/")[::-1]
        done: list[str] = []
        links = 0
        while todo:
            part = todo.pop()
            if part in ("", "."):
                continue
            if part == "..":
                del done[-1:]
                continue
            found = self._entries.get("/".join([*done, part]))
            if found is None or found.kind is not Kind.SYMLINK:
                done.append(part)
                continue
            links += 1
            if links > _MAX_SYMLINKS:
                raise Invalid(f"Too many symbolic links on the way to {path}.")
            if found.target.startswith("/"):
                done.clear()
            todo.extend(found.target.split("/")[::-1])
        return normal_path("/".join(done))

    def content_path(self, entry: Entry) -> Path:
        """The file, readable by this user, that holds a file entry's bytes."""
        if entry.kind is not Kind.FILE or not entry.content:
            raise Invalid(f"{entry.path} is a {entry.kind}, not a file.")
        return self.contents / entry.content

    def open(self, path: str) -> BinaryIO:
        """A file's bytes, symbolic links followed; ``NotFound`` or ``Invalid``."""
        return self.content_path(self.entry(self.resolve(path))).open("rb")

    def read(self, path: str) -> bytes:
        """All bytes of a file, symbolic links followed."""
        with self.open(path) as file:
            return file.read()

    def add_directory(
        self, path: str, *, mode: int = 0o755, uid: int = 0, gid: int = 0, mtime: int = 0
    ) -> Entry:
        """A directory, new or with new metadata. Missing parents are made (here and below)."""
        return self.add(Entry(normal_path(path), Kind.DIRECTORY, mode, uid, gid, mtime))

    def add_symlink(
        self, path: str, target: str, *, uid: int = 0, gid: int = 0, mtime: int = 0
    ) -> Entry:
        """A symbolic link; the target is kept as it is written."""
        entry = Entry(normal_path(path), Kind.SYMLINK, 0o777, uid, gid, mtime, target=target)
        return self.add(entry)

    def add_file(
        self,
        path: str,
        data: bytes | Path,
        *,
        mode: int = 0o644,
        uid: int = 0,
        gid: int = 0,
        mtime: int = 0,
        xattrs: Mapping[str, bytes] | None = None,
    ) -> Entry:
        """A file with these bytes, or those of a file of this machine; replaces what is there."""
        size = len(data) if isinstance(data, bytes) else data.stat().st_size
        entry = Entry(
            normal_path(path), Kind.FILE, mode, uid, gid, mtime, size, xattrs=xattrs or {}
        )
        return self.add(entry, data if isinstance(data, Path) else [(0, data)])

    def add_link(self, path: str, existing: str) -> Entry:
        """One more name for a file of the tree (a hard link)."""
        file = self.entry(existing)
        if file.kind is not Kind.FILE:
            raise Invalid(f"{existing} is a {file.kind}: only files have hard links here.")
        return self._put(replace(file, path=normal_path(path)))

    def add(self, entry: Entry, pieces: Iterable[tuple[int, bytes]] | Path = ()) -> Entry:
        """Any entry, with its bytes where it is a file; returns it as the tree keeps it."""
        self._check_place(entry)
        if entry.kind is Kind.FILE:
            entry = replace(entry, content=self._write_content(entry, pieces))
        return self._put(entry)

    def describe(self, entry: Entry) -> None:
        """Give the file, directory or whatever is at ``entry.path`` this metadata.

        Kind and content stay; ``NotFound`` where nothing is.
        """
        there = self.entry(entry.path)
        if (there.kind, there.content) != (entry.kind, entry.content):
            raise Invalid(f"/{entry.path} is a {there.kind} with a content of its own.")
        self._entries[entry.path] = entry

    def remove(self, path: str) -> int:
        """Remove an entry and everything under it; how many entries that were (0: none)."""
        base = normal_path(path)
        if not base:
            raise Invalid("The root of a tree cannot be removed.")
        present = self._entries.get(base)
        if present is None or present.kind is not Kind.DIRECTORY:
            return self._forget([base] if present else [])
        return self.prune(lambda path: _is_under(path, base))

    def prune(self, doomed: Callable[[str], bool]) -> int:
        """Remove all entries but the root whose path is ``doomed``, looking at each once.

        What is below a doomed directory must be doomed as well. Returns how many were removed.
        """
        return self._forget([path for path in self._entries if path and doomed(path)])

    def _forget(self, paths: Collection[str]) -> int:
        for path in paths:
            self._release(self._entries.pop(path))
        return len(paths)

    def fill(
        self,
        source: Iterable[Item],
        *,
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        """Add all that a source offers; ``Invalid`` where it offers more than the limits."""
        total = 0

        def counted(pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
            nonlocal total
            for offset, data in pieces:
                total += len(data)
                if total > max_bytes:
                    raise Invalid(f"The root file system holds more than {max_bytes} bytes.")
                yield offset, data

        for count, item in enumerate(source, start=1):
            if count > max_entries:
                raise Invalid(f"The root file system has more than {max_entries} entries.")
            if item.link_to is not None:
                self.add_link(item.entry.path, item.link_to)
            else:
                self.add(item.entry, counted(item.pieces))

    def _check_place(self, entry: Entry) -> None:
        """Only a directory holds entries, and only a directory replaces a directory."""
        if entry.path:
            self._require_directory(entry.parent, entry.mtime)
        present = self._entries.get(entry.path)
        if present and (present.kind is Kind.DIRECTORY) != (entry.kind is Kind.DIRECTORY):
            raise Invalid(
                f"/{entry.path} is a {present.kind} and cannot become a {entry.kind}.",
                hint="Remove it first.",
            )

    def _require_directory(self, path: str, mtime: int) -> None:
        missing = []
        while (present := self._entries.get(path)) is None:
            missing.append(path)
            path = path.rpartition("/")[0]
        if present.kind is not Kind.DIRECTORY:
            raise Invalid(
                f"/{path} is a {present.kind}, so it can hold nothing.",
                hint=f"Write to /{self.resolve(path)}." if present.target else "",
                code="unsafe-entry",
            )
        for directory in reversed(missing):
            self._entries[directory] = Entry(directory, Kind.DIRECTORY, 0o755, mtime=mtime)

    def _put(self, entry: Entry) -> Entry:
        self._check_place(entry)
        if entry.content:
            self._uses[entry.content] += 1
        previous = self._entries.get(entry.path)
        self._entries[entry.path] = entry
        if previous:
            self._release(previous)
        return entry

    def _release(self, entry: Entry) -> None:
        """Forget one use of a content; ``save`` drops those without any."""
        if entry.content:
            self._uses[entry.content] -= 1
            if not self._uses[entry.content]:
                del self._uses[entry.content]

    def _write_content(self, entry: Entry, data: Iterable[tuple[int, bytes]] | Path) -> str:
        name = f"{self._next_content:08x}"
        self._next_content += 1
        path = self.contents / name
        try:
            with path.open("xb") as out:
                if not isinstance(data, Path):
                    _write_pieces(out, entry, data)
            if isinstance(data, Path):
                copy_sparse(data, path)
        except BaseException as error:
            path.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise as_nexus_error(error) from error
            raise
        return name


def _write_pieces(out: BinaryIO, entry: Entry, pieces: Iterable[tuple[int, bytes]]) -> None:
    """The pieces at their places, zeros left as holes."""
    out.truncate(entry.size)
    for offset, data in pieces:
        if offset < 0 or offset + len(data) > entry.size:
            raise Invalid(f"/{entry.path} has data behind its end.", code="image-damaged")
        if data != _ZEROS[: len(data)]:
            out.seek(offset)
            out.write(data)


def _sort_key(path: str) -> list[bytes]:
    return encoded(path).split(b"/")


def _is_under(path: str, base: str) -> bool:
    return not base or path == base or path.startswith(base + "/")

"""Fill a tree from archives as ``tar`` would fill a directory, except that nothing can escape.

The last entry of a name wins. A parent that is a symbolic link is followed inside the tree, as
in a chroot. Layers of container images may hide what earlier layers brought ("whiteouts").
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import replace

from images.entries import Entry, Kind, normal_path
from images.formats.compression import too_large
from images.trees import MAX_BYTES, MAX_ENTRIES, Item, Tree
from nexus_site.core.errors import Invalid, NotFound

Watch = Callable[[int], None]  # told the number of entries so far; may raise to give up

_WATCH_EVERY = 200  # entries, or pieces of contents
_WHITEOUT, _RESERVED, _OPAQUE = ".wh.", ".wh..wh.", ".wh..wh..opq"
# Replacing directories and following links costs more than an archive's size says.
_MAX_WORK = 100_000_000
_LINK_WORK = 10_000


def ignore(_count: int) -> None:
    """The watch of those who do not look."""


class Filler:
    """Adds archives to a tree, one after the other; the limits are for all of them together.

    Paths that are or lie under one of ``leave_out`` are not added.
    """

    def __init__(
        self,
        tree: Tree,
        *,
        watch: Watch = ignore,
        leave_out: Collection[str] = (),
        max_entries: int = MAX_ENTRIES,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._tree, self._watch = tree, watch
        self._leave_out = frozenset(normal_path(path) for path in leave_out)
        self._max_entries, self._max_bytes = max_entries, max_bytes
        self._count = self._pieces = self._bytes = self._work = 0
        self._followed = ("", "")  # the last parent behind a link, and where it leads

    def add(self, items: Iterable[Item]) -> None:
        """Add all entries of one archive."""
        for item in self._counted(items):
            self._add(item, self._place(item.entry.path))

    def add_layer(self, items: Iterable[Item]) -> None:
        """Add one layer of a container image, then hide what its whiteouts say.

        A whiteout hides entries of earlier layers only, wherever it stands in its own.
        """
        hidden, opaque, fresh = set[str](), set[str](), {""}
        for item in self._counted(items):
            path = self._place(item.entry.path)
            parent, _, name = path.rpartition("/")
            if name == _OPAQUE:
                opaque.add(parent)
            elif name.startswith(_WHITEOUT):
                if not name.startswith(_RESERVED):
                    hidden.add(_hidden_path(parent, name))
            else:
                self._add(item, path)
                while path not in fresh:
                    fresh.add(path)
                    path = path.rpartition("/")[0]
        if hidden or opaque:
            self._tree.prune(lambda path: path not in fresh and _is_hidden(path, hidden, opaque))

    def _counted(self, items: Iterable[Item]) -> Iterator[Item]:
        for item in items:
            if self._count % _WATCH_EVERY == 0:
                self._watch(self._count)
            self._count += 1
            if max(self._count, len(self._tree)) > self._max_entries:  # parents may be implied
                raise too_large(f"it has more than {self._max_entries} entries")
            yield item

    def _place(self, path: str) -> str:
        """Where an entry goes: its parent with symbolic links followed inside the tree."""
        parent, _, name = path.rpartition("/")
        if not parent or self._kind(parent) is Kind.DIRECTORY:
            return path
        if self._followed[0] != parent:
            try:
                self._followed = parent, self._tree.resolve(parent)
            except Invalid as error:
                raise _unsafe(path, error.text) from error
            self._spend(_LINK_WORK if self._followed[1] != parent else 0)
        return f"{self._followed[1]}/{name}".lstrip("/")

    def _add(self, item: Item, path: str) -> None:
        if self._is_left_out(path):
            return
        entry = item.entry if item.entry.path == path else replace(item.entry, path=path)
        if item.link_to is not None:
            target = self._link_target(path, item.link_to)
            if target.path != path:
                self._make_room(path, target.kind)
                self._link(path, target)
            return
        self._make_room(path, entry.kind)
        self._tree.add(entry, self._counted_pieces(item.pieces))

    def _link_target(self, path: str, link_to: str) -> Entry:
        target = self._place(link_to)
        if self._is_left_out(target):
            raise _unsafe(path, f"it is one more name of /{target}, which is left out")
        try:
            found = self._tree.entry(target)
        except NotFound as error:
            reason = f"it is one more name of /{link_to}, which is not there before it"
            raise _unsafe(path, reason) from error
        if found.kind is Kind.DIRECTORY:
            raise _unsafe(path, f"it is one more name of /{link_to}, which is a directory")
        return found

    def _link(self, path: str, target: Entry) -> None:
        if target.path not in self._tree:
            raise _unsafe(path, f"it would replace the directory of /{target.path}, its own file")
        if target.kind is Kind.FILE:
            self._tree.add_link(path, target.path)
        else:  # other entries have no content to share
            self._tree.add(replace(target, path=path))

    def _make_room(self, path: str, kind: Kind) -> None:
        """What is in the way of an entry goes; a directory takes in another."""
        present = self._kind(path)
        if Kind.SYMLINK in (present, kind) or present not in (None, kind):
            self._followed = ("", "")
        if not path and kind is not Kind.DIRECTORY:
            raise _unsafe(path, f"the root cannot become a {kind}")
        if present is None or (present is Kind.DIRECTORY) == (kind is Kind.DIRECTORY):
            return
        self._spend(len(self._tree) if present is Kind.DIRECTORY else 1)
        self._tree.remove(path)

    def _kind(self, path: str) -> Kind | None:
        return self._tree.entry(path).kind if path in self._tree else None

    def _is_left_out(self, path: str) -> bool:
        while path and self._leave_out:
            if path in self._leave_out:
                return True
            path = path.rpartition("/")[0]
        return False

    def _counted_pieces(self, pieces: Iterable[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
        for offset, data in pieces:
            self._bytes += len(data)
            if self._bytes > self._max_bytes:
                raise too_large(f"its files have more than {self._max_bytes} bytes")
            self._pieces += 1
            if self._pieces % _WATCH_EVERY == 0:
                self._watch(self._count)
            yield offset, data

    def _spend(self, work: int) -> None:
        self._work += work
        if self._work > _MAX_WORK:
            raise too_large("its entries replace or follow each other too often")


def _hidden_path(parent: str, whiteout: str) -> str:
    name = whiteout.removeprefix(_WHITEOUT)
    if name in ("", ".", ".."):
        raise _unsafe(f"{parent}/{whiteout}", "it would hide what is not below it")
    return f"{parent}/{name}".lstrip("/")


def _is_hidden(path: str, hidden: Collection[str], opaque: Collection[str]) -> bool:
    """Whether a path is hidden itself, or something above it is, or is opaque."""
    while path:
        if path in hidden:
            return True
        path = path.rpartition("/")[0]
        if path in opaque:
            return True
    return False


def _unsafe(path: str, reason: str) -> Invalid:
    return Invalid(f"The entry {path!r} cannot be taken: {reason}.", code="unsafe-entry")

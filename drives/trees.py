"""Snapshots in the order of a tree: each below the one that it came after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

DEEPEST = 8  # levels that are shown as such; below, a line says what it came after


class Node(Protocol):
    """A snapshot of a drive or of a VM."""

    @property
    def pk(self) -> int: ...
    @property
    def parent_id(self) -> int | None: ...


N = TypeVar("N", bound=Node)


@dataclass(frozen=True)
class Line(Generic[N]):
    """One line of the tree. ``here``: what is there now goes on from it."""

    snapshot: N
    parent: N | None
    depth: int
    here: bool

    @property
    def level(self) -> int:
        """How far it is moved in."""
        return min(self.depth, DEEPEST)


def tree(snapshots: Iterable[N], head: int | None) -> list[Line[N]]:
    """``snapshots`` depth first, those of one parent in the order given."""
    rows = list(snapshots)
    by_key = {row.pk: row for row in rows}
    below: dict[int | None, list[N]] = defaultdict(list)
    for row in rows:
        below[row.parent_id if row.parent_id in by_key else None].append(row)
    lines: list[Line[N]] = []
    waiting = [(row, 0) for row in reversed(below[None])]
    while waiting:
        row, depth = waiting.pop()
        parent = by_key.get(row.parent_id) if row.parent_id is not None else None
        lines.append(Line(row, parent, depth, row.pk == head))
        waiting += [(child, depth + 1) for child in reversed(below[row.pk])]
    return lines

"""What differs between two texts, as lines to show."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Literal

MOST_LINES = 5000  # comparing costs the square of what differs


@dataclass(frozen=True)
class Line:
    """``kind``: in both texts, in the newer or the older one alone, or left out here."""

    kind: Literal["same", "added", "removed", "gap"]
    text: str

    @property
    def mark(self) -> str:
        return {"added": "+", "removed": "−"}.get(self.kind, " ")


def compare(before: str, after: str) -> list[Line]:
    """The lines that differ with three lines around them; empty when nothing does."""
    old, new = before.splitlines(), after.splitlines()
    if before == after:
        return []
    if max(len(old), len(new)) > MOST_LINES:
        return [Line("gap", "They differ, and are too long to show where.")]
    found = list(difflib.unified_diff(old, new, lineterm="", n=3))[2:]
    return [_line(text) for text in found]


def _line(text: str) -> Line:
    if text.startswith("@@"):
        return Line("gap", "…")
    kinds: dict[str, Literal["added", "removed"]] = {"+": "added", "-": "removed"}
    return Line(kinds.get(text[:1], "same"), text[1:])

"""In what two images differ, for people."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

from images.entries import Entry
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4

MAX_LISTED = 200
_SHOWN = 80


def differences(kept: Path, made: Path) -> list[str]:
    """One line for each path that differs, and how; at most ``MAX_LISTED`` and a last one."""
    old, new = _contents(kept), _contents(made)
    lines = list(_lines(old, new)) or ["The same files lie at other places of the file system."]
    left = len(lines) - MAX_LISTED
    return lines[:MAX_LISTED] + ([f"… and {left} more"] if left > 0 else [])


def _lines(old: dict[str, tuple[Entry, str]], new: dict[str, tuple[Entry, str]]) -> Iterator[str]:
    for path in sorted(old.keys() | new.keys()):
        shown = f"/{path}".encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
        if path not in new:
            yield f"{shown}: only in the image"
        elif path not in old:
            yield f"{shown}: only in this build"
        elif found := list(_changes(old[path], new[path])):
            yield f"{shown}: {', '.join(found)}"


def _changes(old: tuple[Entry, str], new: tuple[Entry, str]) -> Iterator[str]:
    for field in fields(Entry):
        before, after = getattr(old[0], field.name), getattr(new[0], field.name)
        if field.name not in ("path", "content") and before != after:
            yield f"{field.name} {str(before)[:_SHOWN]} → {str(after)[:_SHOWN]}"
    if old[1] != new[1]:
        yield "other bytes"


def _contents(path: Path) -> dict[str, tuple[Entry, str]]:
    """Every entry with the digest of its bytes; one more name of a file has its target's name."""
    found = {}
    with open_disk(path) as disk:
        for item in Ext4(disk).items():
            digest = hashlib.sha256((item.link_to or "").encode("utf-8", "surrogateescape"))
            for offset, data in item.pieces:
                digest.update(offset.to_bytes(8, "big") + data)
            found[item.entry.path] = item.entry, digest.hexdigest()
    return found

"""A VM's serial console, as its monitor keeps it: two bounded files, one stream of bytes.

Offsets count every byte that the guest has ever written, also those that rotation dropped, so
that a reader can always go on where it stopped.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from nexus_site.core.text import decode_piece
from vms.models import VM
from vms.paths import CONSOLE, console_files, vm_dir

TAIL_LINES = 20
TAIL_BYTES = 8192
TRACE_LINES, TRACE_BYTES = 400, 65536  # what a kernel may say after the line that says why
PANIC = "Kernel panic - not syncing"


@dataclass(frozen=True)
class ConsolePage:
    """A piece of the console: ``text`` from ``offset`` to ``next_offset`` of ``size`` bytes."""

    text: str
    offset: int
    next_offset: int
    size: int


def console_tail(vm: VM, lines: int = TAIL_LINES, most: int = TAIL_BYTES) -> list[str]:
    """The last lines that the guest wrote since its start, for a post-mortem; at most so many
    bytes of them."""
    try:
        with (vm_dir(vm) / CONSOLE).open("rb") as file:
            file.seek(max(file.seek(0, os.SEEK_END) - most, 0))
            text = file.read(most).decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip("\r") for line in text.splitlines() if line.strip()][-lines:]


def last_words(vm: VM) -> list[str]:
    """So many of them that what the guest's kernel said of its end is among them."""
    return console_tail(vm, TRACE_LINES, TRACE_BYTES)


def panic(vm: VM) -> str:
    """The line in which the guest's kernel says why it panicked; empty where it does not."""
    return next((line for line in reversed(last_words(vm)) if PANIC in line), "")


def read_console(vm: VM, offset: int = -65536, limit: int = 65536) -> ConsolePage:
    """At most ``limit`` bytes from ``offset`` (negative: from the end), as text.

    What was dropped is passed over. A guest may write anything: what is no UTF-8 is replaced.
    """
    parts = [(path, path.stat().st_size) for path in console_files(vm)]
    begin = position = _dropped(vm)
    size = begin + sum(length for _, length in parts)
    start = min(max(size + offset if offset < 0 else offset, begin), size)
    data = b""
    for path, length in parts:
        skip = max(start - position, 0)
        wanted = limit - len(data)
        if skip < length and wanted > 0:
            with path.open("rb") as file:
                file.seek(skip)
                data += file.read(wanted)
        position += length
    text, taken = decode_piece(data)
    return ConsolePage(text, start, start + taken, size)


def _dropped(vm: VM) -> int:
    """How many of the guest's bytes are gone for good; the monitor counts them."""
    try:
        return int((vm_dir(vm) / f"{CONSOLE}.dropped").read_text())
    except (OSError, ValueError):
        return 0

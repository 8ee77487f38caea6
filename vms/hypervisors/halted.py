"""Guests that switched themselves off under a VMM that does not end by that."""

from __future__ import annotations

import os
from pathlib import Path

CONSOLE = "console.log"
LAST_BYTES = 256
HALTED = (
    b"reboot: System halted",
    b"reboot: Power off not available: System halted instead",
)


def console_says_halted(vm_dir: Path) -> bool:
    """Whether the kernel's last word on the console is that the system is halted.

    The end of the file is read, nothing else: cheap enough for every look at a VM.
    """
    try:
        with (vm_dir / CONSOLE).open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - LAST_BYTES))
            lines = file.read().rstrip().splitlines()
    except FileNotFoundError:
        return False
    return bool(lines) and lines[-1].endswith(HALTED)

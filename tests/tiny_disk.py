"""A disk that is really small, where this user may mount one."""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def tiny_disk(directory: Path, size_mib: int) -> Iterator[Path]:
    """A tmpfs of this size on ``directory``."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={size_mib}m", "tmpfs", str(directory)]
    subprocess.run(command, check=True, capture_output=True)
    try:
        yield directory
    finally:
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


@functools.cache
def can_mount() -> bool:
    """Root usually may; root in a container often may not."""
    if os.geteuid() != 0:
        return False
    with tempfile.TemporaryDirectory() as directory:
        try:
            with tiny_disk(Path(directory), 1):
                return True
        except (OSError, subprocess.CalledProcessError):
            return False

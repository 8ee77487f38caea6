"""Make ext4 images with the system's tools, for tests of our own reader."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from pathlib import Path

from images.formats.e2fsprogs import find_tool


def make_ext4(
    image: Path, source: Path | None = None, *, size_mib: int = 16, options: Sequence[str] = ()
) -> Path:
    """An ext4 file system, with a copy of a directory on it."""
    with image.open("wb") as file:
        file.truncate(size_mib << 20)
    copied = ["-d", str(source)] if source else []
    subprocess.run(
        [find_tool("mke2fs"), "-q", "-F", "-t", "ext4", *options, *copied, str(image)],
        check=True,
        capture_output=True,
    )
    return image


def debugfs(image: Path, *commands: str) -> str:
    """Change or ask a file system; everything that debugfs prints."""
    script = image.with_suffix(".debugfs")
    script.write_text("".join(f"{command}\n" for command in commands))
    done = subprocess.run(
        [find_tool("debugfs"), "-w", "-f", str(script), str(image)],
        check=True,
        capture_output=True,
        text=True,
        errors="replace",
    )
    complaints = [line for line in done.stderr.splitlines() if not line.startswith("debugfs 1.")]
    assert not complaints, complaints
    return done.stdout

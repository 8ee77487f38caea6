"""Images whose file is a real file system, small enough for tests that only look into it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from images.models import Image
from images.services import image_path
from tests.factories import make_image
from tests.images.formats.ext4_images import debugfs, make_ext4

OS_RELEASE = 'NAME=Strange\nPRETTY_NAME="Strange 1"\n'
COLOURS = b"\x1b[31mred\x1b[0m\n"
LATIN = os.fsdecode(b"caf\xe9")
EVIL = "\x1b[2Jgone\u202etxt.exe"
SIZE = 16 << 20


def make_real_image(directory: Path, name: str = "strange", **values: Any) -> Image:
    """An image of a stranger: links, devices, names and texts that are not harmless."""
    root = directory / "root"
    for folder in ("etc", "usr/lib", "empty", "dev"):
        (root / folder).mkdir(parents=True)
    (root / "usr/lib/os-release").write_text(OS_RELEASE)
    (root / "etc/os-release").symlink_to("../usr/lib/os-release")
    (root / "etc/colours").write_bytes(COLOURS)
    (root / "etc" / LATIN).write_text("latin\n")
    (root / "etc" / EVIL).write_text("evil\n")
    (root / "away").symlink_to("/../../etc/passwd")
    (root / "loop").symlink_to("loop")
    (root / "large").write_bytes(os.urandom(3 << 20))
    os.mkfifo(root / "dev/pipe")
    image = make_image(name=name, size_bytes=SIZE, **values)
    image_path(image).parent.mkdir(parents=True, exist_ok=True)
    make_ext4(image_path(image), root)
    return image


def damage(file: Path, path: str) -> None:
    """Break the map of the file at ``path``, so that whoever reads all of the image fails there."""
    mode = file.stat().st_mode
    file.chmod(0o600)
    debugfs(file, f"set_inode_field {path} block[0] 0")
    file.with_suffix(".debugfs").unlink()
    file.chmod(mode)

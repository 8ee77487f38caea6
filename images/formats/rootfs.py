"""From a root file system as its publisher ships it to a tree."""

from __future__ import annotations

from pathlib import Path

from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.trees import Tree
from nexus_site.core.errors import Invalid

FORMATS = ("qcow2", "ext4")


def read_rootfs(path: Path, format_name: str, directory: Path) -> Tree:
    """Unpack the file at ``path`` into a new, saved tree in ``directory`` (new or empty).

    Raises ``Invalid`` for a format that is not in ``FORMATS``, or a file that is damaged, hostile
    or not what it should be; ``Retryable`` with the code ``disk-full``.
    """
    if format_name not in FORMATS:
        raise Invalid(
            f"Root file systems of the format {format_name} cannot be read.",
            hint=f"These can: {', '.join(FORMATS)}",
            code="format-unknown",
        )
    tree = Tree.create(directory)
    with open_disk(path) as disk:
        tree.fill(Ext4(disk).items())
    tree.save()
    return tree

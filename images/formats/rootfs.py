"""From a root file system as its publisher ships it to a tree: one way for all formats."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from images.formats.archives import detect, opened, plain_disk, plain_file
from images.formats.compression import chunks
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.formats.filling import Filler, ignore
from images.formats.oci import ContainerArchive
from images.formats.tar_reader import TarArchive
from images.trees import Tree
from nexus_site.core.errors import Invalid, as_nexus_error

__all__ = ["FORMATS", "RootfsContent", "detect", "read_rootfs"]

_COMPRESSIONS = ("gz", "xz", "bz2", "zst")
_DISKS = ("qcow2", "ext4", *(f"ext4.{name}" for name in _COMPRESSIONS))
_TARS = ("tar", *(f"tar.{name}" for name in _COMPRESSIONS))
_CONTAINERS = ("oci", "docker")
FORMATS = (*_DISKS, *_TARS, *_CONTAINERS)


@dataclass(frozen=True)
class RootfsContent:
    """What came with the entries: of a container image its env, entrypoint, cmd, working_dir
    and user; of others nothing."""

    config: Mapping[str, Any] = field(default_factory=dict)


def read_rootfs(
    path: Path,
    format_name: str,
    tree: Tree,
    *,
    arch: str = "x86_64",
    watch: Callable[[int], None] = ignore,
    leave_out: Collection[str] = (),
) -> RootfsContent:
    """Fill an empty tree with the root file system in the file at ``path``, and save it.

    ``arch`` chooses among the manifests of a container image. ``watch`` is told the number of
    entries now and then, and may raise to give up. What is, or lies under, a path in
    ``leave_out`` is not unpacked. Compression is found by content, whatever the format's name.

    Raises ``Invalid`` for a format that is not in ``FORMATS``, and for a file that is damaged
    (``archive-damaged``, ``image-damaged``), hostile (``unsafe-entry``, ``archive-too-large``),
    made for another architecture or not what it should be; ``Retryable`` (``disk-full``). The
    tree is then to be thrown away.
    """
    if format_name not in FORMATS:
        raise Invalid(
            f"Root file systems of the format {format_name} cannot be read.",
            hint=f"These can: {', '.join(FORMATS)}",
            code="format-unknown",
        )
    filler = Filler(tree, watch=watch, leave_out=leave_out)
    config: Mapping[str, Any] = {}
    try:
        if format_name in _TARS:
            _read_tar(path, filler)
        elif format_name in _DISKS:
            with plain_disk(path, tree.directory, watch) as plain, open_disk(plain) as disk:
                filler.add(Ext4(disk).items())
        else:
            with plain_file(path, tree.directory, watch) as plain:
                config = ContainerArchive(plain).unpack(filler, arch)
    except OSError as error:
        raise as_nexus_error(error) from error
    if len(tree) == 1:
        raise Invalid(f"{path.name} holds no files.", code="archive-empty")
    tree.save()
    return RootfsContent(config)


def _read_tar(path: Path, filler: Filler) -> None:
    with opened(path) as stream:
        filler.add(TarArchive(stream))
        for _ in chunks(stream):  # to the end of compressed data, where its checksum is
            pass

"""File systems of their own in files, for tests and benchmarks; only root can mount them."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

#: What makes each; the smallest that its mkfs takes, in MiB.
MKFS = {
    "btrfs": (("mkfs.btrfs", "-q"), 110),
    "xfs": (("mkfs.xfs", "-q"), 300),
    "ext4": (("mke2fs", "-q", "-F", "-t", "ext4", "-m", "0"), 16),
}


@contextlib.contextmanager
def loop_disk(directory: Path, kind: str, size_mib: int = 0) -> Iterator[Path]:
    """Where a new file system of ``kind`` is mounted, in ``directory``; gone afterwards."""
    words, smallest = MKFS[kind]
    file, mounted = directory / f"{kind}.disk", directory / kind
    mounted.mkdir()
    with file.open("wb") as disk:
        disk.truncate((size_mib or smallest) << 20)
    _run(*words, file)
    discard = "discard=async" if kind == "btrfs" else "discard"
    _run("mount", "-o", f"loop,noatime,{discard}", file, mounted)
    try:
        yield mounted
    finally:
        unmount(mounted)
        file.unlink()


def unmount(mounted: Path) -> None:
    """Take a file system away; its loop device goes with it."""
    if subprocess.run(["umount", mounted], capture_output=True, check=False).returncode:
        _run("umount", "--lazy", mounted)  # a killed process's child may still be ending


def used_bytes(directory: Path) -> int:
    """What is used of the file system, after all that was deleted has been returned."""
    kind = subprocess.run(
        ["stat", "-f", "-c", "%T", directory], check=True, capture_output=True, text=True
    ).stdout.strip()
    if kind == "btrfs":
        _run("btrfs", "filesystem", "sync", directory)
        _run("btrfs", "subvolume", "sync", directory)
        _run("btrfs", "filesystem", "sync", directory)
    else:
        _run("sync", "-f", directory)
    status = os.statvfs(directory)
    return (status.f_blocks - status.f_bfree) * status.f_frsize


def _run(*words: str | Path) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{words}: {done.stderr}"

"""Packing that fails: it says why, and leaves the old file and nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from builds.packing import pack_ext4
from images.entries import Entry, Kind
from images.formats import e2fsprogs
from images.formats.e2fsprogs import find_tool
from images.trees import Tree
from nexus_site.core.errors import Broken, Invalid, NexusError, Retryable
from tests.builds.packing_trees import IDENTITY, SIZE, facts, read_back
from tests.tiny_disk import can_mount, tiny_disk


@pytest.mark.parametrize(
    ("size", "change"),
    [
        (15, {}),
        (1 << 40, {}),
        (16, {"timestamp": 0}),
        (16, {"timestamp": 2**31}),
        (16, {"label": "x" * 17}),
    ],
)
def test_arguments_out_of_range_are_refused(
    tree: Tree, tmp_path: Path, size: int, change: dict[str, object]
) -> None:
    with pytest.raises(Invalid):
        pack_ext4(tree, tmp_path / "image", size, **(IDENTITY | change))
    assert not (tmp_path / "image").exists()


def refused(tree: Tree, out: Path, kind: type[NexusError], code: str) -> NexusError:
    """Pack, which must fail so; and leave the old file and nothing else."""
    out.write_text("old")
    around, inside = set(out.parent.iterdir()), set(tree.directory.iterdir())
    with pytest.raises(kind) as raised:
        pack_ext4(tree, out, 16, **IDENTITY)
    assert raised.value.code == code
    assert out.read_text() == "old"
    assert (set(out.parent.iterdir()), set(tree.directory.iterdir())) == (around, inside)
    return raised.value


def test_a_tree_that_does_not_fit_is_refused(tree: Tree, tmp_path: Path) -> None:
    tree.add_file("large", os.urandom(16 << 20))
    assert "16 MiB" in refused(tree, tmp_path / "image", Invalid, "image-too-small").text


def test_attributes_that_ext4_cannot_hold_are_refused(tree: Tree, tmp_path: Path) -> None:
    tree.add_file("file", b"", xattrs={f"user.{n}": bytes(1000) for n in range(9)})
    refused(tree, tmp_path / "image", Invalid, "invalid")


def test_a_device_with_a_newline_in_its_name_is_refused(tree: Tree, tmp_path: Path) -> None:
    tree.add(Entry("a\nb", Kind.BLOCK_DEVICE, 0o600))
    refused(tree, tmp_path / "image", Invalid, "unsafe-entry")


def shim(directory: Path, tool: str, script: str) -> None:
    """Put a shell script in front of a tool; ``$REAL`` is the tool itself."""
    real = find_tool(tool)
    path = directory / tool
    path.write_text(f"#!/bin/sh\nREAL={real}\n{script}\n")
    path.chmod(0o755)


def test_an_mke2fs_that_does_not_know_prezeroed_storage_will_do(
    full_tree: Tree, tmp_path: Path, shims: Path
) -> None:
    shim(
        shims,
        "mke2fs",
        'case "$*" in *assume_storage_prezeroed*)\n'
        "  echo 'Bad option(s) specified: assume_storage_prezeroed' >&2; exit 1;; esac\n"
        'exec $REAL "$@"',
    )
    pack_ext4(full_tree, tmp_path / "image", 1024, **IDENTITY)
    assert facts(read_back(tmp_path / "image", tmp_path / "back")) == facts(full_tree)
    assert (tmp_path / "image").stat().st_blocks * 512 < 64 << 20


@pytest.mark.parametrize(
    "script",
    ["exit 0", 'exec $REAL -f /dev/null "$4"', "echo 'sif: it went wrong' >&2; exit 0"],
    ids=["nothing", "commands-lost", "complaint"],
)
def test_a_debugfs_that_does_nothing_is_found_out(
    full_tree: Tree, tmp_path: Path, shims: Path, script: str
) -> None:
    shim(shims, "debugfs", script)
    refused(full_tree, tmp_path / "image", Broken, "packing-failed")


def test_a_file_system_with_errors_is_not_delivered(
    tree: Tree, tmp_path: Path, shims: Path
) -> None:
    shim(shims, "e2fsck", "echo 'Inode 12 is wrong'; exit 4")
    failure = refused(tree, tmp_path / "image", Broken, "file-system-damaged")
    assert "Inode 12 is wrong" in failure.detail


def test_a_tool_that_fails_is_quoted(tree: Tree, tmp_path: Path, shims: Path) -> None:
    shim(shims, "mke2fs", "echo 'out of memory' >&2; exit 1")
    assert "out of memory" in refused(tree, tmp_path / "image", Broken, "e2fsprogs-failed").detail


def test_missing_tools_come_with_the_command_that_installs_them(
    tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(e2fsprogs, "_SBIN", ())
    failure = refused(tree, tmp_path / "image", Broken, "tool-missing")
    assert "mke2fs" in failure.text
    assert "e2fsprogs" in failure.hint


@pytest.mark.parametrize("tool", ["mke2fs", "debugfs"])
def test_a_full_disk_is_worth_another_try(
    full_tree: Tree, tmp_path: Path, shims: Path, tool: str
) -> None:
    """By what the tools say when a write fails, whatever they exit with."""
    say_that_the_disk_is_full(shims, tool)
    refused(full_tree, tmp_path / "image", Retryable, "disk-full")
    (shims / tool).unlink()
    pack_ext4(full_tree, tmp_path / "image", SIZE, **IDENTITY)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_a_disk_that_fills_at_any_point(
    full_tree: Tree, tmp_path: Path, shims: Path, size: int
) -> None:
    """On a disk that is really small, where one may be mounted."""
    full_tree.add_file("large", os.urandom(4 << 20))
    (tmp_path / "disk").mkdir()
    if can_mount():
        with tiny_disk(tmp_path / "disk", size) as disk:
            refused(full_tree, disk / "image", Retryable, "disk-full")
    else:
        say_that_the_disk_is_full(shims, ("mke2fs", "debugfs", "e2fsck")[size - 1])
        refused(full_tree, tmp_path / "disk" / "image", Retryable, "disk-full")


def say_that_the_disk_is_full(shims: Path, tool: str) -> None:
    shim(shims, tool, "echo 'No space left on device while writing' >&2; exit 0")

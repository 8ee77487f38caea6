"""Packing trees into ext4: everything survives and nothing differs."""

from __future__ import annotations

import os
import shutil
import tempfile
import traceback
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builds.packing import pack_ext4
from images.entries import Entry, Kind, decoded, encoded
from images.files import sha256_of
from images.formats.e2fsprogs import check
from images.trees import Tree
from nexus_site.core.errors import Invalid
from tests.builds.packing_trees import IDENTITY, SIZE, facts, fill, read_back
from tests.forked import start_forked
from tests.images.formats.ext4_images import debugfs


def test_everything_survives(full_tree: Tree, tmp_path: Path) -> None:
    pack_ext4(full_tree, tmp_path / "image", SIZE, **IDENTITY)
    assert facts(read_back(tmp_path / "image", tmp_path / "back")) == facts(full_tree)


def test_another_program_sees_the_same(full_tree: Tree, tmp_path: Path) -> None:
    """The reader above is our own: debugfs, e2fsck and dumpe2fs are not."""
    image = tmp_path / "image"
    pack_ext4(full_tree, image, SIZE, **IDENTITY)
    sudo = debugfs(image, "stat /usr/bin/sudo")
    assert "Mode:  06755" in sudo
    assert "Group: 70000" in sudo
    assert "Links: 3" in sudo
    assert "mtime: 0x3b9aca00:00000000" in sudo
    assert "ctime: 0x6553f100:00000000" in sudo
    assert "crtime: 0x6553f100:00000000" in sudo
    assert "User:    12   Group:    13" in debugfs(image, "stat /short")
    assert "number: 300:03" in debugfs(image, 'stat "/dev/s 2"')
    assert "number: 05:01" in debugfs(image, 'stat "/dev/s 0"')
    assert "01 02 03 04" in debugfs(image, "ea_get -x /capable security.capability")
    assert "Fast link dest" not in debugfs(image, "stat /long")
    statistics = debugfs(image, "stats")
    assert "Filesystem volume name:   nexus" in statistics
    assert str(IDENTITY["fs_uuid"]) in statistics
    assert str(IDENTITY["hash_seed"]) in statistics
    assert "has_journal" in statistics
    check(image)


@given(
    names=st.sets(
        st.binary(min_size=1, max_size=255).filter(
            lambda raw: raw not in (b".", b"..", b"lost+found") and not {0, 47} & set(raw)
        ),
        min_size=1,
        max_size=25,
    ),
    device=st.booleans(),
)
@settings(max_examples=12, deadline=None)
def test_any_name_survives_or_is_refused(
    tmp_path_factory: pytest.TempPathFactory, names: set[bytes], device: bool
) -> None:
    base = tmp_path_factory.mktemp("names")
    tree = Tree.create(base / "tree")
    kind = Kind.CHARACTER_DEVICE if device else Kind.FIFO
    for raw in names:
        tree.add(Entry(decoded(raw), kind, 0o644, uid=len(raw)))
    if device and any({10, 13} & set(raw) for raw in names):
        with pytest.raises(Invalid, match="newline"):
            pack_ext4(tree, base / "image", 16, **IDENTITY)
        return
    pack_ext4(tree, base / "image", 16, **IDENTITY)
    back = read_back(base / "image", base / "back")
    assert {encoded(entry.path): entry.uid for entry in back if entry.path} == {
        raw: len(raw) for raw in names
    }


def test_the_same_tree_gives_the_same_bytes(tmp_path: Path) -> None:
    digests = set()
    for number, mask in enumerate((0o022, 0o077)):
        tree = Tree.create(tmp_path / f"tree-{number}")
        names = [f"crowd/{name}" for name in range(400)]
        for name in names if number else reversed(names):
            tree.add_file(name, name.encode() * 300, mode=0o640, uid=5)
        fill(tree)
        before = os.umask(mask)
        try:
            pack_ext4(tree, tmp_path / f"image-{number}", SIZE, **IDENTITY)
        finally:
            os.umask(before)
        digests.add(sha256_of(tmp_path / f"image-{number}"))
    assert len(digests) == 1


@pytest.mark.parametrize(
    "change",
    [{"fs_uuid": UUID(int=1)}, {"hash_seed": UUID(int=1)}, {"timestamp": 1}, {"label": ""}],
    ids=str,
)
def test_another_identity_gives_other_bytes(
    tree: Tree, tmp_path: Path, change: dict[str, object]
) -> None:
    tree.add_file("file", b"content")
    pack_ext4(tree, tmp_path / "one", SIZE, **IDENTITY)
    pack_ext4(tree, tmp_path / "other", SIZE, **(IDENTITY | change))
    assert sha256_of(tmp_path / "one") != sha256_of(tmp_path / "other")


def test_a_large_image_costs_what_its_data_costs(tree: Tree, tmp_path: Path) -> None:
    tree.add_file("data", os.urandom(1 << 20))
    pack_ext4(tree, tmp_path / "image", **IDENTITY)
    status = (tmp_path / "image").stat()
    assert status.st_size == 8 << 30
    assert status.st_blocks * 512 < 12 << 20


def test_a_foreign_lost_and_found_is_left_out(tree: Tree, tmp_path: Path) -> None:
    tree.add_file("lost+found/file", b"lost")
    pack_ext4(tree, tmp_path / "image", SIZE, **IDENTITY)
    assert "lost+found" not in read_back(tmp_path / "image", tmp_path / "back")
    assert "lost+found" in debugfs(tmp_path / "image", "ls /")


def test_nothing_but_the_image_is_left(full_tree: Tree, tmp_path: Path) -> None:
    full_tree.save()
    before = sorted(full_tree.directory.rglob("*"))
    (tmp_path / "out").mkdir()
    pack_ext4(full_tree, tmp_path / "out" / "image", SIZE, **IDENTITY)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["image"]
    assert sorted(full_tree.directory.rglob("*")) == before


@pytest.fixture
def nobodys_directory() -> Iterator[Path]:
    """A directory that belongs to an ordinary user, for whom pytest's own are closed."""
    directory = Path(tempfile.mkdtemp(prefix="nexus-nobody-"))
    if os.geteuid() == 0:
        os.chown(directory, 65534, 65534)
    yield directory
    shutil.rmtree(directory)


def pack_as_nobody(directory: Path, result: Connection) -> None:
    try:
        if os.geteuid() == 0:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
        tree = Tree.create(directory / "tree")
        fill(tree)
        pack_ext4(tree, directory / "image", SIZE, **IDENTITY)
        result.send(sha256_of(directory / "image"))
    except BaseException:
        result.send(traceback.format_exc())


def test_an_ordinary_user_packs_the_same_bytes(
    full_tree: Tree, tmp_path: Path, nobodys_directory: Path
) -> None:
    worker, result = start_forked(pack_as_nobody, nobodys_directory)
    found = result.recv()
    worker.join()
    pack_ext4(full_tree, tmp_path / "image", SIZE, **IDENTITY)
    assert found == sha256_of(tmp_path / "image")

"""Every format that a root file system is shipped in: found by its content, read in one way."""

from __future__ import annotations

from pathlib import Path

import pytest

from images.formats.rootfs import FORMATS, detect, read_rootfs
from images.trees import Tree
from nexus_site.core.errors import Conflict, Invalid, NotFound, Retryable
from tests.images.formats.archive_files import PACKERS, directory, file, hard_link, write_tar
from tests.images.formats.ext4_images import make_ext4

PARTS = (directory("./"), file("./etc/os-release", b"ID=test\n"), file("./bin/sh", b"#!" * 900))


@pytest.fixture
def ext4(tmp_path: Path) -> Path:
    source = tmp_path / "source"
    (source / "etc").mkdir(parents=True)
    (source / "etc" / "os-release").write_bytes(b"ID=test\n")
    (source / "boot").mkdir()
    (source / "boot" / "kernel").write_bytes(b"k" * 5000)
    return make_ext4(tmp_path / "fs.img", source)


def read(path: Path, format_name: str = "") -> Tree:
    tree = Tree.create(path.with_name("tree"))
    read_rootfs(path, format_name or detect(path), tree)
    return tree


@pytest.mark.parametrize("compression", ["", *PACKERS])
def test_archives_of_any_compression_are_found_and_read(tmp_path: Path, compression: str) -> None:
    path = write_tar(tmp_path / "rootfs", *PARTS, compression=compression)
    assert detect(path) == ".".join(filter(None, ("tar", compression)))
    assert read(path).read("etc/os-release") == b"ID=test\n"


@pytest.mark.parametrize("compression", ["", *PACKERS])
def test_disks_of_any_compression_are_found_and_read(
    tmp_path: Path, ext4: Path, compression: str
) -> None:
    path = tmp_path / "rootfs"
    path.write_bytes(PACKERS[compression](ext4.read_bytes()) if compression else ext4.read_bytes())
    assert detect(path) == ".".join(filter(None, ("ext4", compression)))
    tree = read(path)
    assert tree.read("etc/os-release") == b"ID=test\n"
    assert {found.name for found in tree.directory.iterdir()} == {"content", "manifest.jsonl"}


def test_the_compression_is_what_the_file_says_not_its_name(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "rootfs.tar.gz", *PARTS, compression="xz")
    assert read(path, "tar.gz").read("etc/os-release") == b"ID=test\n"


def test_what_is_read_is_saved(tmp_path: Path) -> None:
    tree = read(write_tar(tmp_path / "rootfs", *PARTS))
    assert list(Tree.load(tree.directory)) == list(tree)


@pytest.mark.parametrize("kind", ["tar", "ext4"])
def test_what_is_left_out_is_not_unpacked(tmp_path: Path, ext4: Path, kind: str) -> None:
    more = (directory("boot"), file("/boot/kernel", b"k" * 5000), file("bootstrap", b"stays"))
    path = write_tar(tmp_path / "rootfs", *PARTS, *more) if kind == "tar" else ext4
    tree = Tree.create(tmp_path / "tree")
    read_rootfs(path, kind, tree, leave_out=("/boot", "var/cache/apk"))
    assert "boot" not in tree
    assert "etc/os-release" in tree
    assert ("bootstrap" in tree) == (kind == "tar")
    sizes = [content.stat().st_size for content in (tree.directory / "content").iterdir()]
    assert 5000 not in sizes


def test_a_second_name_of_what_is_left_out_is_refused(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "rootfs", file("boot/k", b"k"), hard_link("keep", "boot/k"))
    with pytest.raises(Invalid, match="left out"):
        read_rootfs(path, "tar", Tree.create(tmp_path / "tree"), leave_out=("boot",))


def test_the_watch_is_told_and_can_give_up(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "rootfs", *(file(f"f{n}") for n in range(1000)))
    told: list[int] = []

    def watch(count: int) -> None:
        told.append(count)
        if count > 300:
            raise Conflict("cancelled")

    with pytest.raises(Conflict, match="cancelled"):
        read_rootfs(path, "tar", Tree.create(tmp_path / "tree"), watch=watch)
    assert told == sorted(told)
    assert told[0] == 0
    assert len(told) > 2


@pytest.mark.parametrize("content", [b"", b"text" * 1000, bytes(5000), b"\x1f\x8b\x08" + b"x" * 90])
def test_what_is_no_root_file_system_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "rootfs").write_bytes(content)
    with pytest.raises(Invalid) as refusal:
        detect(tmp_path / "rootfs")
    assert refusal.value.code in ("format-unknown", "archive-damaged")


def test_a_compressed_file_of_zeros_is_no_root_file_system(tmp_path: Path) -> None:
    (tmp_path / "rootfs").write_bytes(PACKERS["gz"](bytes(50 << 20)))
    with pytest.raises(Invalid) as refusal:
        detect(tmp_path / "rootfs")
    assert refusal.value.code == "format-unknown"


def test_only_known_formats_are_read(tmp_path: Path) -> None:
    tree = Tree.create(tmp_path / "tree")
    with pytest.raises(Invalid, match="rar") as refusal:
        read_rootfs(tmp_path / "rootfs", "rar", tree)
    assert refusal.value.code == "format-unknown"
    assert all(name in refusal.value.hint for name in FORMATS)


@pytest.mark.parametrize("format_name", ["tar", "qcow2", "ext4.zst", "oci", "docker"])
def test_a_file_that_is_missing_or_of_another_format_is_said(
    tmp_path: Path, ext4: Path, format_name: str
) -> None:
    with pytest.raises(NotFound):
        read_rootfs(tmp_path / "none", format_name, Tree.create(tmp_path / "one"))
    wrong = write_tar(tmp_path / "t", file("f")) if "tar" not in format_name else ext4
    with pytest.raises(Invalid):
        read_rootfs(wrong, format_name, Tree.create(tmp_path / "two"))


def test_a_full_disk_is_said(tmp_path: Path, ext4: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "rootfs").write_bytes(PACKERS["gz"](ext4.read_bytes()))
    monkeypatch.setattr("images.formats.archives._write", full)
    with pytest.raises(Retryable) as refusal:
        read(tmp_path / "rootfs", "ext4.gz")
    assert refusal.value.code == "disk-full"

"""Exports: what goes out comes back the same, in constant memory."""

from __future__ import annotations

import subprocess
import tarfile
import tracemalloc
import uuid
from pathlib import Path

import pytest
from backports import zstd

from builds.packing import pack_ext4
from images.entries import MAX_MTIME, Entry, Kind, decoded
from images.export import ext4_zst_stream, tar_stream
from images.formats.rootfs import detect, read_rootfs
from images.trees import Tree
from nexus_site.core.errors import Invalid

ODD = b"n\xc3\xa4me \xff\xfe\"'\n\x1b" + b"x" * 120


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """Everything that an image can hold and an archive too."""
    tree = Tree.create(tmp_path / "tree")
    tree.add_directory("/", mode=0o750, mtime=5)
    tree.add_directory("deep/" + "d" * 120, mode=0o1777, uid=1)
    tree.add_file("deep/su", b"program" * 300, mode=0o6711, uid=70_000, gid=4_000_000_000, mtime=9)
    tree.add_link("hard", "deep/su")
    tree.add_file(decoded(ODD), b"", mtime=MAX_MTIME)
    tree.add_link("hard-odd", decoded(ODD))
    tree.add_symlink("short", "deep/su", uid=3)
    tree.add_symlink("long", decoded(b"t/\xff" + b"y" * 300))
    tree.add(Entry("console", Kind.CHARACTER_DEVICE, 0o620, device=(5, 1)))
    tree.add(Entry("disk", Kind.BLOCK_DEVICE, 0o660, device=(300, 70_000)))
    tree.add(Entry("pipe", Kind.FIFO, 0o600))
    xattrs = {"security.capability": bytes(range(20)), "user.a=b%": b"\n=\xff"}
    tree.add_file("ping", b"ping", mode=0o755, xattrs=xattrs)
    holes = Entry("holes", Kind.FILE, 0o644, size=3 << 20)
    tree.add(holes, [(1 << 20, b"island" * 1000)])
    return tree


@pytest.fixture
def image(tmp_path: Path, tree: Tree) -> Path:
    identity = uuid.UUID(int=7)
    out = tmp_path / "image.ext4"
    pack_ext4(tree, out, 256, fs_uuid=identity, hash_seed=identity, timestamp=1000)
    return out


def written(path: Path, stream: object) -> Path:
    with path.open("wb") as out:
        for chunk in stream:  # type: ignore[attr-defined]
            out.write(chunk)
    return path


def entries(tree: Tree) -> list[tuple[object, ...]]:
    return [
        (
            entry.path, entry.st_mode, entry.uid, entry.gid, entry.mtime, entry.target,
            entry.device, entry.xattrs, tree.read(entry.path) if entry.content else b"",
        )
        for entry in tree
    ]  # fmt: skip


def test_the_archive_of_an_image_reads_back_as_the_same_entries(
    tmp_path: Path, tree: Tree, image: Path
) -> None:
    archive = written(tmp_path / "out.tar", tar_stream(image))
    assert detect(archive) == "tar"
    again = Tree.create(tmp_path / "again")
    read_rootfs(archive, "tar", again)
    assert entries(again) == entries(tree)
    assert again.entry("hard").content == again.entry("deep/su").content


def test_other_programs_read_the_archive(tmp_path: Path, tree: Tree, image: Path) -> None:
    archive = written(tmp_path / "out.tar", tar_stream(image))
    listed = subprocess.run(
        ["tar", "-tvf", archive, "--numeric-owner"], check=True, capture_output=True, text=True
    )
    assert len(listed.stdout.splitlines()) == len(tree)
    assert "-rws--s--x 70000/4000000000" in listed.stdout
    complaints = set(listed.stderr.splitlines())
    assert complaints <= {"tar: Ignoring unknown extended header keyword 'hdrcharset'"}
    with tarfile.open(archive, encoding="utf-8") as python:
        members = {member.name.removeprefix("./"): member for member in python}
    assert members["ping"].pax_headers["SCHILY.xattr.security.capability"]
    assert (members["disk"].devmajor, members["disk"].devminor) == (300, 70_000)
    assert decoded(ODD) in members


def test_the_same_image_gives_the_same_archive(image: Path) -> None:
    assert b"".join(tar_stream(image)) == b"".join(tar_stream(image))


def test_the_compressed_disk_is_the_disk(tmp_path: Path, tree: Tree, image: Path) -> None:
    packed = written(tmp_path / "out.zst", ext4_zst_stream(image))
    assert packed.stat().st_size < 1 << 20
    assert detect(packed) == "ext4.zst"
    assert zstd.decompress(packed.read_bytes()) == image.read_bytes()
    again = Tree.create(tmp_path / "again")
    read_rootfs(packed, "ext4.zst", again)
    assert entries(again) == entries(tree)


@pytest.mark.parametrize(
    "islands", [(), (0,), (70 << 20,), (0, 64 << 20, 200 << 20), ((130 << 20) - 4096,)]
)
def test_holes_anywhere_come_back_as_zeros(tmp_path: Path, islands: tuple[int, ...]) -> None:
    path = tmp_path / "disk"
    with path.open("wb") as out:
        for offset in islands:
            out.seek(offset)
            out.write(b"island" * 600)
        out.truncate(max((130 << 20) + 5, out.tell()))
    assert zstd.decompress(b"".join(ext4_zst_stream(path))) == path.read_bytes()


def test_a_large_image_goes_out_in_little_memory(tmp_path: Path, image: Path) -> None:
    with image.open("r+b") as file:
        file.truncate(8 << 30)
    tracemalloc.start()
    try:
        packed = sum(len(chunk) for chunk in ext4_zst_stream(image))
        archived = sum(len(chunk) for chunk in tar_stream(image))
        assert tracemalloc.get_traced_memory()[1] < 24 << 20
    finally:
        tracemalloc.stop()
    assert packed < 2 << 20
    assert archived < 8 << 20


def test_what_is_no_image_has_no_archive(tmp_path: Path) -> None:
    (tmp_path / "fs.img").write_bytes(b"text" * 9000)
    with pytest.raises(Invalid):
        list(tar_stream(tmp_path / "fs.img"))

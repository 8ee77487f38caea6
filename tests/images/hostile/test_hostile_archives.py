"""Hostile archives are refused by name or stay inside the tree; nothing else happens."""

from __future__ import annotations

import contextlib
import gzip
import io
import random
import re
import stat
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.entries import Kind
from images.formats.filling import Filler
from images.formats.rootfs import read_rootfs
from images.formats.tar_reader import TarArchive
from images.trees import Tree
from nexus_site.core.errors import Invalid
from tests.images.formats.archive_files import (
    END,
    PACKERS,
    directory,
    file,
    hard_link,
    header,
    pax,
    symlink,
    write_tar,
)
from tests.images.hostile.corpus import CONTAINED, OUTSIDE, REFUSED, many

Unpack = Callable[[bytes], Tree]


def listing(directory: Path) -> dict[str, tuple[int, int, bytes]]:
    """Every file below a directory: mode, time and content."""
    found = {}
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found[str(path)] = (status.st_mode, status.st_mtime_ns, content)
    return found


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """A directory of this machine; whatever a test unpacks, it stays as it is."""
    place = tmp_path / "outside"
    place.mkdir()
    (place / "precious").write_text("precious")
    before = listing(place)
    yield place
    assert listing(place) == before


@pytest.fixture
def unpack(tmp_path: Path, outside: Path) -> Iterator[Unpack]:
    """Unpack an archive into a new tree; afterwards this machine has that tree and no more."""
    archive, directory = tmp_path / "rootfs", tmp_path / "tree"

    def unpack(data: bytes) -> Tree:
        archive.write_bytes(data)
        tree = Tree.create(directory)
        read_rootfs(archive, "tar", tree)
        return tree

    yield unpack
    assert {path.name for path in tmp_path.iterdir()} <= {"outside", "rootfs", "tree"}
    for path in directory.rglob("*"):
        name = str(path.relative_to(directory))
        assert re.fullmatch(r"manifest\.jsonl|content|content/[0-9a-f]{8}", name)
        assert stat.S_ISDIR(path.lstat().st_mode) or path.lstat().st_nlink == 1
        assert not stat.S_IMODE(path.lstat().st_mode) & 0o7000


def aimed(archive: bytes, outside: Path) -> bytes:
    """The archive with the name of ``outside`` in it, where it says ``OUTSIDE``."""
    blocks = [archive[at : at + 512] for at in range(0, len(archive), 512)]
    return b"".join(
        _renamed(block, str(outside).encode()) if OUTSIDE in block[:257] else block
        for block in blocks
    )


def _renamed(block: bytes, place: bytes) -> bytes:
    name, link = block[:100].rstrip(b"\0"), block[157:257].rstrip(b"\0")
    path, target = name.replace(OUTSIDE, place), link.replace(OUTSIDE, place)
    records = {b"path": path} | ({b"linkpath": target} if target else {})
    return pax(records) + block


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, unpack: Unpack, outside: Path) -> None:
    archive, code = REFUSED[name]
    with pytest.raises(Invalid) as refusal:
        unpack(aimed(archive, outside) + END)
    assert refusal.value.code == code


@pytest.mark.parametrize("name", CONTAINED)
def test_contained(name: str, unpack: Unpack, outside: Path) -> None:
    archive, expected = CONTAINED[name]
    tree = unpack(aimed(archive, outside) + END)
    kinds = {"/" + entry.path: entry.kind.value for entry in tree}
    for path, kind in expected.items():
        place = path.replace("OUTSIDE", str(outside)) if "OUTSIDE" in path else "/" + path
        assert kinds.get(place) == kind


def test_the_last_of_many_wins(unpack: Unpack) -> None:
    tree = unpack(b"".join(file("a", b"%d" % n) for n in range(50)) + END)
    assert tree.read("a") == b"49"
    assert len(list((tree.directory / "content").iterdir())) == 1


@pytest.mark.parametrize("count", [3, 40])
def test_an_archive_that_ends_at_any_block_is_refused(
    tmp_path: Path, outside: Path, count: int
) -> None:
    parts = [directory("d"), file("d/f", b"x" * 3000), symlink("s", OUTSIDE), hard_link("h", "d/f")]
    archive = b"".join(parts * count)
    for number, length in enumerate(range(0, len(archive) + 1, 512 * (1 + count // 10))):
        (tmp_path / "rootfs").write_bytes(archive[:length])
        with pytest.raises(Invalid) as refusal:
            read_rootfs(tmp_path / "rootfs", "tar", Tree.create(tmp_path / f"tree{number}"))
        assert refusal.value.code == "archive-damaged"


@pytest.mark.parametrize("compression", sorted(PACKERS))
def test_a_compressed_archive_that_ends_anywhere_is_refused(
    tmp_path: Path, compression: str
) -> None:
    content = random.Random(5).randbytes(6000)
    whole = write_tar(tmp_path / "whole", file("f", content), compression=compression).read_bytes()
    for number, length in enumerate(range(0, len(whole), 512)):
        (tmp_path / "rootfs").write_bytes(whole[:length])
        with pytest.raises(Invalid) as refusal:
            read_rootfs(tmp_path / "rootfs", "tar.gz", Tree.create(tmp_path / f"tree{number}"))
        assert refusal.value.code == "archive-damaged"


def zeros_packed(total: int) -> bytes:
    """A gzip file of so many zeros, itself made in no time: members repeat."""
    member = gzip.compress(bytes(64 << 20), 9)
    return member * (total // (64 << 20))


def test_ten_gigabytes_of_zeros_end_early(unpack: Unpack) -> None:
    start = gzip.compress(header("zeros", size=8**11 - 1))
    with pytest.raises(Invalid) as refusal:
        unpack(start + zeros_packed(10 << 30))
    assert refusal.value.code == "archive-too-large"


def test_a_bomb_in_a_bomb_is_only_a_file(unpack: Unpack) -> None:
    inner = gzip.compress(zeros_packed(1 << 30))
    tree = unpack(gzip.compress(file("bomb.gz", inner) + END))
    assert tree.read("bomb.gz") == inner


def test_a_compressed_archive_in_another_compression_is_no_archive(unpack: Unpack) -> None:
    with pytest.raises(Invalid) as refusal:
        unpack(gzip.compress(gzip.compress(file("f") + END)))
    assert refusal.value.code == "archive-damaged"


def test_a_flood_of_entries_ends_at_the_limit(tmp_path: Path) -> None:
    tree = Tree.create(tmp_path / "tree")
    with pytest.raises(Invalid) as refusal:
        Filler(tree, max_entries=500).add(TarArchive(io.BytesIO(many(600) + END)))
    assert refusal.value.code == "archive-too-large"
    assert len(tree) <= 501


def test_parents_that_no_entry_names_count_too(tmp_path: Path) -> None:
    deep = b"".join(pax({b"path": b"%d/" % n + b"d/" * 900}) + directory("d") for n in range(5))
    with pytest.raises(Invalid) as refusal:
        Filler(Tree.create(tmp_path / "tree"), max_entries=2000).add(
            TarArchive(io.BytesIO(deep + END))
        )
    assert refusal.value.code == "archive-too-large"


def test_contents_end_at_the_limit(tmp_path: Path) -> None:
    archive = b"".join(file(f"f{n}", b"x" * 400) for n in range(30)) + END
    with pytest.raises(Invalid) as refusal:
        Filler(Tree.create(tmp_path / "tree"), max_bytes=10_000).add(
            TarArchive(io.BytesIO(archive))
        )
    assert refusal.value.code == "archive-too-large"


@pytest.mark.parametrize(
    "pair",
    [
        [directory("d"), file("d", b"")],
        [symlink("a", "x"), file("a/1", b""), symlink("b", "y"), file("b/1", b"")],
    ],
    ids=["directories that files replace", "links to follow"],
)
def test_entries_that_cost_more_than_they_weigh_end_at_a_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair: list[bytes]
) -> None:
    monkeypatch.setattr("images.formats.filling._MAX_WORK", 100_000)
    archive = many(300) + b"".join(pair) * 400 + END
    with pytest.raises(Invalid, match="too often"):
        Filler(Tree.create(tmp_path / "tree")).add(TarArchive(io.BytesIO(archive)))


def test_entries_are_forgotten_once_they_are_read() -> None:
    archive = TarArchive(io.BytesIO(many(30_000) + END))
    tracemalloc.start()
    try:
        assert sum(1 for _ in archive) == 30_000
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


BASE = b"".join(
    [
        directory("d"), file("d/f", b"x" * 700), symlink("s", "d"), hard_link("h", "d/f"),
        header("c", type=b"3", device=(1, 3)), pax({b"path": b"l" * 120, b"mtime": b"1.5"}),
        file("l", b"long"), pax({b"SCHILY.xattr.user.a": b"b"}), file("a", b"attribute"),
        pax({b"GNU.sparse.major": b"1", b"GNU.sparse.realsize": b"9000"}),
        file("p", b"1\n8000\n5\n".ljust(512, b"\0") + b"ISLES"),
    ]
) + END  # fmt: skip


def resummed(archive: bytearray) -> bytes:
    """The archive with right checksums in all blocks that look like headers."""
    for at in range(0, len(archive), 512):
        block = archive[at : at + 512]
        if block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            archive[at + 148 : at + 156] = b"%06o\0 " % sum(block)
    return bytes(archive)


@given(seed=st.integers(0, 2**32), count=st.integers(1, 12), checksums=st.booleans())
@settings(max_examples=250, deadline=None)
def test_a_changed_archive_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, seed: int, count: int, checksums: bool
) -> None:
    source = random.Random(seed)
    archive = bytearray(BASE)
    places = [at for at, byte in enumerate(archive) if byte]
    for place in source.sample(places, count):
        archive[place] = source.choice(
            [0, 0x2F, 0x2E, 0x30, 0x37, 0x80, 0xFF, archive[place] ^ 1, source.randrange(256)]
        )
    tree = Tree.create(tmp_path_factory.mktemp("fuzz") / "tree")
    with contextlib.suppress(Invalid):
        data = resummed(archive) if checksums else bytes(archive)
        Filler(tree).add(TarArchive(io.BytesIO(data)))
    for entry in tree:
        assert ".." not in entry.path.split("/")
        assert not entry.path or tree.entry(entry.parent).kind is Kind.DIRECTORY

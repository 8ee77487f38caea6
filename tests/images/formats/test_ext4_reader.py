"""Reading ext4: what mke2fs and debugfs wrote, and file systems that lie."""

from __future__ import annotations

import contextlib
import random
import stat
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.entries import Entry, Kind
from images.formats.disks import RawDisk
from images.formats.ext4_reader import Ext4
from images.trees import Item
from nexus_site.core.errors import Invalid
from tests.images.formats.ext4_images import debugfs, make_ext4


@contextlib.contextmanager
def opened(image: Path) -> Iterator[Ext4]:
    with RawDisk(image) as disk:
        yield Ext4(disk)


def read_all(image: Path) -> dict[str, tuple[Entry, bytes]]:
    """Every entry with its data, by path."""
    with opened(image) as file_system:
        return {item.entry.path: (item.entry, data_of(item)) for item in file_system.items()}


def data_of(item: Item) -> bytes:
    data = bytearray(item.entry.size)
    for offset, piece in item.pieces:
        data[offset : offset + len(piece)] = piece
    return bytes(data)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A directory with what is awkward: many names, long links, holes, large files."""
    root = tmp_path / "source"
    (root / "deep" / "er").mkdir(parents=True)
    (root / "empty").write_bytes(b"")
    (root / "short").write_bytes(b"short")
    (root / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    with (root / "sparse").open("wb") as file:
        for offset in range(0, 1 << 20, 1 << 16):
            file.seek(offset)
            file.write(b"island")
        file.truncate(2 << 20)
    (root / "short-link").symlink_to("deep/er")
    (root / "long-link").symlink_to("x" * 59 + "/y" * 400)
    (root / "deep" / "er" / "hard").hardlink_to(root / "short")
    crowd = root / "crowd"
    crowd.mkdir()
    for number in range(300):
        (crowd / f"name-{number:04}-{'n' * 60}").write_bytes(b"%d" % number)
    return root


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("-b", "1024"),
        ("-O", "^64bit,^metadata_csum"),
        ("-O", "^has_journal,^flex_bg"),
        ("-I", "128", "-O", "^extra_isize"),
        ("-I", "512"),
    ],
    ids=" ".join,
)
def test_reads_what_mke2fs_copied(tmp_path: Path, source: Path, options: tuple[str, ...]) -> None:
    found = read_all(make_ext4(tmp_path / "fs.img", source, size_mib=32, options=options))
    wanted = {"": source} | {str(p.relative_to(source)): p for p in source.rglob("*")}
    assert found.keys() == wanted.keys()
    for path, original in wanted.items():
        entry, data = found[path]
        status = original.lstat()
        assert entry.st_mode == status.st_mode
        assert (entry.uid, entry.gid) == ((0, 0) if not path else (status.st_uid, status.st_gid))
        if entry.kind is Kind.SYMLINK:
            assert entry.target == str(original.readlink())
        elif entry.kind is Kind.FILE and path != "short":  # second name of deep/er/hard
            assert data == original.read_bytes()
            assert entry.mtime == int(status.st_mtime)


def test_parents_come_first_and_names_in_order(tmp_path: Path, source: Path) -> None:
    paths = list(read_all(make_ext4(tmp_path / "fs.img", source)))
    assert paths[0] == ""
    assert all(path.rpartition("/")[0] in paths[:at] for at, path in enumerate(paths) if path)
    assert [path for path in paths if "/" not in path] == sorted(p for p in paths if "/" not in p)


def test_a_second_name_of_a_file_is_a_link_to_the_first(tmp_path: Path, source: Path) -> None:
    with opened(make_ext4(tmp_path / "fs.img", source)) as file_system:
        links = {item.entry.path: item.link_to for item in file_system.items() if item.link_to}
    assert links == {"short": "deep/er/hard"}


def test_reads_what_only_root_could_have_made(tmp_path: Path) -> None:
    image = make_ext4(tmp_path / "fs.img")
    (tmp_path / "capability").write_bytes(bytes(range(20)))
    debugfs(
        image,
        "mknod console c 5 1",
        "mknod disk b 8 16",
        "mknod pipe p",
        f"write {tmp_path / 'capability'} ping",
        "sif ping uid 70000",
        "sif ping gid 2000000000",
        "sif ping mode 0104755",
        "sif ping mtime @86400",
        f"ea_set -f {tmp_path / 'capability'} ping security.capability",
        'ea_set ping "user.two words" value',
        "mknod far c 0 0",
        f"sif far block[1] {300 << 8 | 0x34 | 0x12 << 20}",
    )
    found = {path: entry for path, (entry, _) in read_all(image).items()}
    assert found["console"].kind is Kind.CHARACTER_DEVICE
    assert found["console"].device == (5, 1)
    assert (found["disk"].kind, found["disk"].device) == (Kind.BLOCK_DEVICE, (8, 16))
    assert found["far"].device == (300, 0x1234)
    assert found["pipe"].kind is Kind.FIFO
    ping = found["ping"]
    assert (ping.uid, ping.gid, ping.mtime) == (70000, 2_000_000_000, 86400)
    assert ping.st_mode == stat.S_IFREG | stat.S_ISUID | 0o755
    assert ping.xattrs == {
        "security.capability": bytes(range(20)),
        "user.two words": b"value",
    }


def test_lost_and_found_is_the_file_systems_own(tmp_path: Path) -> None:
    assert list(read_all(make_ext4(tmp_path / "fs.img"))) == [""]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (["feature needs_recovery"], "not unmounted cleanly"),
        (["write SOURCE f", "sif f flags 0x80800"], "encrypted"),
        (["write SOURCE f", "sif f flags 0x10080000"], "inline_data"),
        (["write SOURCE f", "sif f flags 0"], "block map"),
        (["mkdir a", "ln a b"], "two places"),
        (["mkdir a", "mkdir a/b", "ln / a/b/c"], "two places"),
        (["write SOURCE f", "sif f mode 0070644"], "no known type"),
        (["write SOURCE f", "sif f block[0] 0"], "makes no sense"),
        (["write SOURCE f", "sif f block[5] 0xffffff"], "ends at"),
        (["symlink s /target", "sif s size 5000"], "too long"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_refuses_by_name_what_it_cannot_read(
    tmp_path: Path, change: list[str], reason: str
) -> None:
    image = make_ext4(tmp_path / "fs.img")
    text = tmp_path / "text"
    text.write_bytes(b"t" * 9000)
    debugfs(image, *(command.replace("SOURCE", str(text)) for command in change))
    with pytest.raises(Invalid, match=reason):
        read_all(image)


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (0, struct.pack("<I", 99999), "no inode 99999"),
        (4, struct.pack("<H", 0), "makes no sense"),
        (4, struct.pack("<H", 9), "makes no sense"),
        (4, struct.pack("<H", 12), "makes no sense"),
        (4, struct.pack("<H", 8192), "makes no sense"),
        (6, b"\0", "impossible name"),
        (11, b"/", "impossible name"),
        (11, b"\0", "impossible name"),
    ],
)
def test_refuses_directory_entries_that_lie(
    tmp_path: Path, field: int, value: bytes, reason: str
) -> None:
    image = make_ext4(tmp_path / "fs.img")
    debugfs(image, "symlink distinct target")
    content = bytearray(image.read_bytes())
    at = content.index(b"distinct") - 8 + field
    content[at : at + len(value)] = value
    image.write_bytes(content)
    with pytest.raises(Invalid, match=reason):
        read_all(image)


def test_files_that_claim_each_others_blocks_end_as_a_bomb(tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_bytes(random.Random(2).randbytes(8 << 20))
    image = make_ext4(tmp_path / "fs.img")
    names = [f"copy-{number}" for number in range(12)]
    debugfs(image, f"write {text} f", *(f"copy_inode f <{n}>" for n in range(50, 62)))
    debugfs(image, *(f"ln <{n}> {name}" for n, name in zip(range(50, 62), names, strict=True)))
    with pytest.raises(Invalid, match="more blocks than it has"):
        read_all(image)


@pytest.mark.parametrize("content", [b"", b"\0" * 5000, b"no file system" * 200])
def test_what_is_no_ext4_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "fs.img").write_bytes(content)
    with pytest.raises(Invalid):
        read_all(tmp_path / "fs.img")


@pytest.fixture(scope="module")
def small_image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    base = tmp_path_factory.mktemp("ext4")
    (base / "source" / "directory").mkdir(parents=True)
    (base / "source" / "directory" / "file").write_bytes(b"content" * 1000)
    (base / "source" / "link").symlink_to("t" * 100)
    options = ("-b", "1024", "-O", "^has_journal,^resize_inode")
    image = make_ext4(base / "fs.img", base / "source", size_mib=1, options=options)
    debugfs(image, "ea_set directory/file user.name value", "mknod null c 1 3")
    return image.read_bytes()


@given(seed=st.integers(0, 2**32), count=st.integers(1, 60))
@settings(max_examples=60, deadline=None)
def test_a_damaged_file_system_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, small_image: bytes, seed: int, count: int
) -> None:
    """Bytes that are not zero are changed: the others mean nothing."""
    source = random.Random(seed)
    image = bytearray(small_image)
    places = [at for at, byte in enumerate(image) if byte]
    for place in source.sample(places, count):
        image[place] = source.choice([0, 1, 0xFF, image[place] ^ 1, image[place] ^ 0x80])
    path = tmp_path_factory.mktemp("ext4") / "fs.img"
    path.write_bytes(image)
    with contextlib.suppress(Invalid):
        read_all(path)

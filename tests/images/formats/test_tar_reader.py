"""Reading tar: what the system's tar and Python write, and what headers can say."""

from __future__ import annotations

import base64
import io
import os
import random
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest

from images.entries import MAX_MTIME, Entry, Kind, decoded
from images.formats.tar_reader import TarArchive
from nexus_site.core.errors import Invalid
from tests.images.formats.archive_files import (
    END,
    directory,
    file,
    hard_link,
    header,
    padded,
    pax,
    symlink,
)


def read(data: bytes, *, complete: bool = True) -> dict[str, tuple[Entry, bytes, str | None]]:
    """Every entry by path with its data and what it is a link to."""
    found = {}
    for item in TarArchive(io.BytesIO(data), complete=complete):
        content = bytearray(item.entry.size)
        for offset, piece in item.pieces:
            content[offset : offset + len(piece)] = piece
        found[item.entry.path] = (item.entry, bytes(content), item.link_to)
    return found


def only(data: bytes) -> Entry:
    ((entry, _, _),) = read(data + END).values()
    return entry


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "source"
    (root / "deep" / ("d" * 90) / ("e" * 90)).mkdir(parents=True)
    (root / "deep" / ("d" * 90) / ("e" * 90) / ("f" * 90)).write_bytes(b"far away")
    (root / "näme\n").write_bytes(b"odd")
    Path(os.fsdecode(os.fsencode(root) + b"/\xff\xfe")).write_bytes(b"no text")
    (root / "large").write_bytes(random.Random(1).randbytes(3 << 20))
    (root / "empty").write_bytes(b"")
    (root / "suid").write_bytes(b"program")
    (root / "suid").chmod(0o4755)
    (root / "hard").hardlink_to(root / "suid")
    (root / "link").symlink_to("t" * 200)
    os.mkfifo(root / "pipe")
    return root


@pytest.mark.parametrize("form", ["gnu", "pax", "ustar", "oldgnu"])
def test_reads_what_the_systems_tar_wrote(source: Path, form: str) -> None:
    if form == "ustar":
        (source / "link").unlink()  # longer than it can hold, as is the deepest name
        shutil.rmtree(source / "deep" / ("d" * 90) / ("e" * 90))
    command = ["tar", "-C", source, f"--format={form}", "--numeric-owner", "-cf", "-", "."]
    found = read(subprocess.run(command, check=True, capture_output=True).stdout)
    assert found.keys() == {""} | {str(path.relative_to(source)) for path in source.rglob("*")}
    links = {path: link for path, (_, _, link) in found.items() if link}
    assert set(links) | set(links.values()) == {"hard", "suid"}
    for path, (entry, data, _) in found.items():
        if path in links:
            continue
        status = (source / path).lstat()
        assert (entry.st_mode, entry.uid, entry.gid) == (
            status.st_mode, status.st_uid, status.st_gid,
        )  # fmt: skip
        assert entry.mtime == int(status.st_mtime)
        if entry.kind is Kind.FILE:
            assert data == (source / path).read_bytes()
        elif entry.kind is Kind.SYMLINK:
            assert entry.target == str((source / path).readlink())


@pytest.mark.parametrize(
    "options",
    [
        ["--format=gnu"],
        ["--format=pax", "--sparse-version=0.0"],
        ["--format=pax", "--sparse-version=0.1"],
        ["--format=pax", "--sparse-version=1.0"],
    ],
    ids=" ".join,
)
def test_sparse_files_keep_their_holes(tmp_path: Path, options: list[str]) -> None:
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as out:
        for number in range(60):
            out.seek(number << 16)
            out.write(b"island" * 700)
        out.truncate(8 << 20)
    (tmp_path / "z").write_bytes(b"behind")
    command = ["tar", "-C", tmp_path, "-S", *options, "-cf", "-", "sparse", "z"]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    assert len(archive) < 1 << 20
    found = read(archive)
    assert found["sparse"][1] == sparse.read_bytes()
    assert found["z"][1] == b"behind"


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_python_wrote(form: int) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form) as archive:
        for kind, name in ((tarfile.CHRTYPE, "null"), (tarfile.BLKTYPE, "disk")):
            info = tarfile.TarInfo(name)
            info.type, info.devmajor, info.devminor, info.mode = kind, 8, 300, 0o620
            archive.addfile(info)
        info = tarfile.TarInfo("/rooted/p" + "q" * 60)
        info.size, info.uid, info.gid = 4, 70_000, 2_000_000
        archive.addfile(info, io.BytesIO(b"data"))
    found = read(out.getvalue())
    assert found["null"][0] == Entry("null", Kind.CHARACTER_DEVICE, 0o620, device=(8, 300))
    assert found["disk"][0].kind is Kind.BLOCK_DEVICE
    entry, data, _ = found["rooted/p" + "q" * 60]
    assert (entry.uid, entry.gid, data) == (70_000, 2_000_000, b"data")


def test_numbers_may_be_binary_and_owners_large() -> None:
    entry = only(header("x", uid=b"\x80\0\0\0" + (2**32 - 1).to_bytes(4, "big")))
    assert entry.uid == 2**32 - 1
    assert only(pax({b"uid": b"4000000000", b"gid": b"3000000000"}) + file("x")).gid == 3 * 10**9


@pytest.mark.parametrize(
    ("field", "records", "mtime"),
    [
        (b"\xff" * 11 + b"\0", {}, 0),
        (b"\x80" + b"\xff" * 11, {}, MAX_MTIME),
        (b"00000000012\0", {}, 10),
        (b"00000000012\0", {b"mtime": b"1234567890.987654321"}, 1234567890),
        (b"00000000012\0", {b"mtime": b"-5.5"}, 0),
        (b"00000000012\0", {b"mtime": b"1e300"}, MAX_MTIME),
    ],
)
def test_times_are_moved_into_what_every_tool_can_write(
    field: bytes, records: dict[bytes, bytes], mtime: int
) -> None:
    assert only(pax(records) + file("x", mtime=field)).mtime == mtime


def test_extended_attributes_are_kept_as_bytes() -> None:
    value = bytes(range(256))
    entry = only(
        pax(
            {
                b"SCHILY.xattr.security.capability": value,
                b"SCHILY.xattr.user.a%3Db": b"=\n=",
                b"LIBARCHIVE.xattr.user.t%77o": base64.b64encode(value).rstrip(b"="),
                b"SCHILY.xattr.com.apple.quarantine": b"of another system",
                b"SCHILY.acl.access": b"user::rw-",
            }
        )
        + file("x")
    )
    assert entry.xattrs == {"security.capability": value, "user.a=b": b"=\n=", "user.two": value}


def test_pax_says_name_link_and_size_and_only_for_the_next_entry() -> None:
    archive = (
        pax({b"path": b"p\xff/" + b"n" * 200, b"size": b"3", b"comment": b"x"})
        + header("short", size=0)
        + padded(b"abc")
        + pax({b"linkpath": b"to/\xff"})
        + symlink("s", "other")
        + file("last", b"end")
        + END
    )
    found = read(archive)
    assert found[decoded(b"p\xff/" + b"n" * 200)][1] == b"abc"
    assert found["s"][0].target == decoded(b"to/\xff")
    assert found["last"][1] == b"end"


def test_a_global_header_is_for_all_and_cannot_rename() -> None:
    archive = pax({b"path": b"evil", b"mtime": b"99", b"comment": b"c"}, type=b"g")
    found = read(archive + file("a") + file("b") + END)
    assert {path: entry.mtime for path, (entry, _, _) in found.items()} == {"a": 99, "b": 99}


def test_an_empty_record_takes_back_what_it_names() -> None:
    assert only(pax({b"path": b"", b"uid": b""}) + file("x")).path == "x"


def test_old_ways_to_write_are_understood() -> None:
    found = read(
        file("label", type=b"V") + header("old/", type=b"\0", mode=0o755)
        + file("contiguous", b"c", type=b"7") + header("dump", type=b"D", size=7)
        + padded(b"Yname\0\0") + header("f", prefix=b"in/front") + END
    )  # fmt: skip
    kinds = {path: entry.kind.value for path, (entry, _, _) in found.items()}
    assert kinds == {
        "old": "directory", "contiguous": "file", "dump": "directory", "in/front/f": "file",
    }  # fmt: skip


def test_names_are_made_relative_and_normal() -> None:
    found = read(directory("./") + file("//etc//x") + hard_link("y", "/etc/./x") + END)
    assert list(found) == ["", "etc/x", "y"]
    assert found["y"][2] == "etc/x"


def test_an_archive_without_its_end_is_damaged_unless_a_digest_vouches_for_it() -> None:
    with pytest.raises(Invalid, match="too soon"):
        read(file("x", b"data"))
    assert read(file("x", b"data"), complete=False)["x"][1] == b"data"
    with pytest.raises(Invalid, match="too soon"):
        read(file("x", b"data")[:-1], complete=False)


@pytest.mark.parametrize(
    ("archive", "code", "reason"),
    [
        (file("x", checksum=b"000000\0 "), "archive-damaged", "checksum"),
        (header("x", size=b"\xff" * 11 + b"\0"), "archive-damaged", "negative size"),
        (header("x", size=b"-0000000001\0"), "archive-damaged", "negative size"),
        (header("x", size=b"eleven\0\0\0\0\0\0"), "archive-damaged", "in place of a number"),
        (header("x", size=1 << 20), "archive-damaged", "too soon"),
        (header("x", size=b"\x80" + b"\xff" * 11), "unsafe-entry", "size"),
        (file("x", uid=b"\xff" * 8), "unsafe-entry", "uid"),
        (header("p", type=b"x", size=1 << 32), "archive-too-large", "4294967296"),
        (header("p", type=b"L", size=b"\x80" + b"\xff" * 11), "archive-too-large", "bytes"),
        (header("p", type=b"x", size=512) + b"9" * 512, "archive-damaged", "PAX"),
        (file("p", b"5 a=b\n", type=b"x") + file("x"), "archive-damaged", "PAX"),
        (file("p", b"6 abc\n", type=b"x") + file("x"), "archive-damaged", "PAX"),
        (file("p", b"99 a=b\n", type=b"x") + file("x"), "archive-damaged", "PAX"),
        (file("p", b"0 a=b\n", type=b"x") + file("x"), "archive-damaged", "PAX"),
        (pax({b"size": b"-1"}) + file("x"), "archive-damaged", "number"),
        (pax({b"size": b"9" * 50}) + file("x"), "archive-damaged", "number"),
        (pax({b"mtime": b"nan"}) + file("x"), "archive-damaged", "time"),
        (pax({b"mtime": b"inf"}) + file("x"), "archive-damaged", "time"),
        (pax({b"path": b"a\0b"}) + file("x"), "unsafe-entry", "NUL"),
        (pax({b"LIBARCHIVE.xattr.user.a": b"\xff!"}) + file("x"), "archive-damaged", "base64"),
        (pax({b"SCHILY.xattr.user.a": bytes(70_000)}) + file("x"), "unsafe-entry", "too large"),
        (pax({}) * 9 + file("x"), "archive-damaged", "too many headers"),
        (pax({b"a": b"b"}, type=b"g") * 9 + file("x"), "archive-damaged", "too many headers"),
        (file("x", type=b"M"), "archive-unsupported", "unknown type"),
        (header("x", type=b"3", device=(4096, 0)), "unsafe-entry", "device"),
        (symlink("x", ""), "unsafe-entry", "target"),
        (pax({b"GNU.sparse.map": b"0,1,0,1"}) + file("x", b"ab"), "archive-damaged", "overlap"),
        (pax({b"GNU.sparse.map": b"0,3"}) + file("x", b"ab"), "archive-damaged", "match"),
        (pax({b"GNU.sparse.map": b"0"}) + file("x", b"ab"), "archive-damaged", "no sense"),
        (pax({b"GNU.sparse.map": b"9,2"}) + file("x", b"ab"), "archive-damaged", "match"),
        (pax({b"GNU.sparse.major": b"1"}) + file("x", b"1\n"), "archive-damaged", "ends inside"),
        (
            pax({b"GNU.sparse.major": b"1"}) + file("x", b"999999999\n".ljust(512)),
            "archive-damaged",
            "too many parts",
        ),
        (
            pax({b"GNU.sparse.major": b"1"}) + file("x", bytes(5000)),
            "archive-damaged",
            "no sense",
        ),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused_by_name(archive: bytes, code: str, reason: str) -> None:
    with pytest.raises(Invalid, match=reason) as refusal:
        read(archive + END)
    assert refusal.value.code == code

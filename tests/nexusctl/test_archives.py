"""Archives from guests that lie: nothing is written but into the directory, and little is kept."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from nexusctl.archives import Counted, unpack
from nexusctl.errors import Failure


def entry(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, target, 0o644
    return info


def archive(*entries: tuple[tarfile.TarInfo, bytes], form: int = tarfile.GNU_FORMAT) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=form) as tar:
        for info, content in entries:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def endless() -> bytes:
    info = entry("././@LongLink", tarfile.GNUTYPE_LONGNAME)
    info.size = 1 << 40
    return info.tobuf(tarfile.GNU_FORMAT) + bytes(100_000)


OUT = "../../outside"
EVIL = {
    "above": archive((entry("../escaped"), b"x")),
    "above, deep": archive((entry("a/../../escaped"), b"x")),
    "absolute": archive((entry("/escaped"), b"x")),
    "through a link": archive((entry("d", tarfile.SYMTYPE, OUT), b""), (entry("d/escaped"), b"x")),
    "into a linked directory": archive(
        (entry("d", tarfile.SYMTYPE, OUT), b""), (entry("d", tarfile.DIRTYPE), b"")
    ),
    "no archive": b"x" * 4096,
    "an end too early": archive((entry("a"), b"x" * 2000))[:1024],
    "no end": archive((entry("a"), b""))[:512],
    "an endless name": endless(),
    "headers of pax": archive((entry("x" * 300), b""), form=tarfile.PAX_FORMAT),
}


@pytest.mark.parametrize("evil", EVIL.values(), ids=EVIL.keys())
def test_nothing_is_written_elsewhere(tmp_path: Path, evil: bytes) -> None:
    into, outside = tmp_path / "here/out", tmp_path / "outside"
    into.mkdir(parents=True)
    outside.mkdir()
    with pytest.raises(Failure):
        unpack(io.BytesIO(evil).read, into, Counted())
    assert not list(outside.iterdir())
    assert list(into.parent.iterdir()) == [into]
    assert not Path("/escaped").exists()


def test_links_that_were_there_are_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "out/file").symlink_to(tmp_path / "precious")
    unpack(io.BytesIO(archive((entry("file"), b"new"))).read, tmp_path / "out", Counted())
    assert (tmp_path / "precious").read_text() == "precious"
    assert (tmp_path / "out/file").read_text() == "new"


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    source = io.BytesIO(
        archive(
            (entry("pipe", tarfile.FIFOTYPE), b""),
            (entry("device", tarfile.CHRTYPE), b""),
            (entry("hard", tarfile.LNKTYPE, "/etc/passwd"), b""),
            (entry("file"), b"hello"),
        )
    )
    counted = Counted()
    unpack(source.read, tmp_path, counted)
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]
    assert counted == Counted(entries=1, bytes=5, skipped=3)


def test_an_archive_in_crumbs(tmp_path: Path) -> None:
    source = io.BytesIO(archive((entry("file"), b"hello" * 1000)))
    unpack(lambda most: source.read(min(most, 7)), tmp_path, Counted())
    assert (tmp_path / "file").read_bytes() == b"hello" * 1000


def test_a_disk_that_is_full_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    source = io.BytesIO(archive((entry("file"), b"x")))
    with pytest.raises(Failure, match="file: is a directory"):
        unpack(source.read, tmp_path, Counted())

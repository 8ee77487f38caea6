"""Files on their way to the server and from it."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from nexusctl import files
from nexusctl.errors import Failure


def archive(path: Path) -> bytes:
    with files.source(path) as (stream, size):
        assert size is None
        return b"".join(iter(lambda: stream.read(4096), b""))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    path = tmp_path / "root"
    (path / "etc").mkdir(parents=True)
    (path / "etc/motd").write_text("hello\n")
    (path / "etc/motd").chmod(0o4711)
    (path / "etc/link").symlink_to("/etc/motd")
    os.link(path / "etc/motd", path / "hard")
    os.mkfifo(path / "pipe")
    return path


def test_a_file_is_itself(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    with files.source(tmp_path / "x") as (stream, size):
        assert (stream.read(), size) == (b"abc", 3)


def test_the_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file behind it has a size, a pipe has none."""
    (tmp_path / "x").write_bytes(b"abcdef")
    with (tmp_path / "x").open() as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        stdin.buffer.read(2)
        with files.source(Path("-")) as (stream, size):
            assert (stream.read(), size) == (b"cdef", 4)
    reading, writing = os.pipe()
    os.write(writing, b"abc")
    os.close(writing)
    with os.fdopen(reading) as stdin:
        monkeypatch.setattr("sys.stdin", stdin)
        with files.source(Path("-")) as (stream, size):
            assert (stream.read(), size) == (b"abc", None)


def test_a_directory_becomes_an_archive_with_all_that_it_has(root: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive(root))) as tar:
        found = {member.name: member for member in tar}
    assert found["./etc/motd"].mode == 0o4711
    assert found["./etc/link"].linkname == "/etc/motd"
    assert found["./hard"].islnk() or found["./etc/motd"].islnk()
    assert found["./pipe"].isfifo()
    assert {(member.uname, member.gname) for member in found.values()} == {("", "")}


def test_a_directory_makes_the_same_archive_whoever_looked_at_it(root: Path) -> None:
    first = archive(root)
    os.utime(root / "etc/motd", ns=(1, (root / "etc/motd").stat().st_mtime_ns))
    assert archive(root) == first


def test_half_an_archive_does_not_end_like_a_whole_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_TAR", (*files._TAR, "--file=-", str(tmp_path / "gone")))
    (tmp_path / "root").mkdir()
    with pytest.raises(Failure, match="tar could not read all"):
        archive(tmp_path / "root")


def test_without_tar(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Failure, match="tar is not installed"):
        archive(tmp_path)


def test_what_cannot_be_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no such file"), files.source(tmp_path / "x"):
        pass


def test_a_sink_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "x"
    target.write_bytes(b"before")
    with pytest.raises(RuntimeError), files.sink(target) as sink:
        sink.write(b"half")
        raise RuntimeError
    assert target.read_bytes() == b"before"
    with files.sink(target) as sink:
        sink.write(b"whole")
    assert target.read_bytes() == b"whole"
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


def test_the_standard_output_is_a_sink(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    with files.sink(Path("-")) as sink:
        sink.write(b"\x00\xff")
    assert capfdbinary.readouterr().out == b"\x00\xff"

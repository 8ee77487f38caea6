"""Files that are whole or not there, sparse copies, and what is swept."""

from __future__ import annotations

import errno
import os
import random
import signal
import stat
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from images import files
from images.files import copy_sparse, move_file, scratch_directory, sha256_of, sweep, whole_file
from nexus_site.core.errors import Broken, Conflict, Retryable
from tests.forked import start_forked


def test_a_whole_file_appears_at_the_end(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with whole_file(target, 0o440) as temporary:
        temporary.write_text("new")
        assert target.read_text() == "old"
    assert target.read_text() == "new"
    assert stat.S_IMODE(target.stat().st_mode) == 0o440
    assert list(tmp_path.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")
    with pytest.raises(ZeroDivisionError), whole_file(target) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, Retryable, "disk-full"),
        (errno.EDQUOT, Retryable, "disk-full"),
        (errno.EACCES, Broken, "permission"),
        (errno.EIO, Broken, "os-error"),
    ],
)
def test_system_errors_become_errors_for_people(
    tmp_path: Path, number: int, kind: type[Exception], code: str
) -> None:
    with pytest.raises(kind) as raised, whole_file(tmp_path / "file"):
        raise OSError(number, os.strerror(number))
    assert raised.value.code == code
    assert list(tmp_path.iterdir()) == []


def test_a_scratch_directory_goes_with_all_it_holds(tmp_path: Path) -> None:
    with scratch_directory(tmp_path) as scratch:
        (scratch / "deep").mkdir()
        (scratch / "deep" / "file").write_text("text")
        assert stat.S_IMODE(scratch.stat().st_mode) == 0o700
    assert list(tmp_path.iterdir()) == []


def leave_half_done(directory: Path, ready: Connection) -> None:
    with whole_file(directory / "file") as temporary, scratch_directory(directory) as scratch:
        temporary.write_text("half")
        (scratch / "inside").write_text("half")
        ready.send("half done")
        signal.pause()


def test_sweep_takes_what_a_killed_process_left_and_nothing_that_is_written_now(
    tmp_path: Path,
) -> None:
    worker, halfway = start_forked(leave_half_done, tmp_path)
    assert halfway.recv() == "half done"
    (tmp_path / "finished").write_text("stays")
    assert sweep(tmp_path) == []
    os.kill(worker.pid, signal.SIGKILL)
    worker.join()
    assert len(sweep(tmp_path)) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["finished"]


@pytest.fixture
def islands(tmp_path: Path) -> Path:
    """A sparse file: 64 MiB, of which 5 MiB are data, with a hole at the end."""
    path = tmp_path / "islands"
    source = random.Random(3)
    with path.open("wb") as file:
        for megabyte in (0, 17, 18, 40, 50):
            file.seek(megabyte << 20)
            file.write(source.randbytes(1 << 20))
        file.truncate(64 << 20)
    return path


def test_copies_stay_sparse_and_tell_their_progress(tmp_path: Path, islands: Path) -> None:
    target = tmp_path / "copy"
    target.write_bytes(b"what was there before" * 1000)
    told: list[tuple[int, int]] = []
    copy_sparse(islands, target, lambda done, total: told.append((done, total)))
    assert sha256_of(target) == sha256_of(islands)
    assert target.stat().st_blocks * 512 < 8 << 20
    assert told == sorted(told)
    assert told[-1] == (64 << 20, 64 << 20)


@pytest.mark.parametrize("refusal", [errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, 0])
def test_copies_without_the_kernels_help(
    tmp_path: Path, islands: Path, monkeypatch: pytest.MonkeyPatch, refusal: int
) -> None:
    def refuse(*_: object) -> int:
        if refusal:
            raise OSError(refusal, os.strerror(refusal))
        return 0

    monkeypatch.setattr(os, "copy_file_range", refuse)
    target = tmp_path / "copy"
    target.touch()
    copy_sparse(islands, target)
    assert sha256_of(target) == sha256_of(islands)
    assert target.stat().st_blocks * 512 < 8 << 20


def test_copies_all_where_the_file_system_knows_no_holes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cannot_seek(*_: object) -> int:
        raise OSError(errno.EINVAL, "no SEEK_DATA")

    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(random.Random(4).randbytes(3 << 20))
    target.touch()
    monkeypatch.setattr(os, "lseek", cannot_seek)
    copy_sparse(source, target)
    assert sha256_of(source) == sha256_of(target)


def test_an_empty_file_and_a_hole_can_be_copied(tmp_path: Path) -> None:
    for size in (0, 1 << 30):
        source, target = tmp_path / f"source-{size}", tmp_path / f"target-{size}"
        source.touch()
        os.truncate(source, size)
        target.touch()
        copy_sparse(source, target)
        assert (target.stat().st_size, target.stat().st_blocks) == (size, 0)


def test_a_file_is_moved_within_a_file_system_and_copied_between_two(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near, far = tmp_path / "near", tmp_path / "far"
    near.write_text("near")
    inode = near.stat().st_ino
    move_file(near, tmp_path / "moved", 0o400)
    assert ((tmp_path / "moved").stat().st_ino, near.exists()) == (inode, False)

    replace = Path.replace

    def other_file_system(self: Path, target: Path) -> Path:
        if self == far:
            raise OSError(errno.EXDEV, "other file system")
        return replace(self, target)

    monkeypatch.setattr(files.Path, "replace", other_file_system)
    far.write_text("far")
    move_file(far, tmp_path / "copied", 0o400)
    assert ((tmp_path / "copied").read_text(), far.exists()) == ("far", False)
    assert stat.S_IMODE((tmp_path / "copied").stat().st_mode) == 0o400


def test_a_sweep_between_making_and_locking_a_directory_does_no_harm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process may sweep at any time, so also then."""
    opened, real = [], os.open

    def swept_first(path: Path, *arguments: int, **options: int) -> int:
        if not opened:
            opened.append(path)
            assert sweep(tmp_path) == [path]
        return real(path, *arguments, **options)

    monkeypatch.setattr(os, "open", swept_first)
    with scratch_directory(tmp_path) as scratch:
        assert scratch not in opened
        assert scratch.is_dir()
        assert sweep(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_where_two_files_differ_is_told_in_whole_blocks(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for path in (one, other):
        path.touch()
        os.truncate(path, 1 << 30)
    with one.open("r+b") as file:
        file.write(b"the same")
        file.seek(5000)
        file.write(b"only here")
        file.seek(1 << 20)
        file.write(bytes(4096))  # written, and as a hole reads
    with other.open("r+b") as file:
        file.write(b"the same")
        file.seek(8192)
        file.write(b"only there")
        file.seek((1 << 30) - 1)
        file.write(b".")
    assert files.differing_ranges(one, other) == [(4096, 12288), ((1 << 30) - 4096, 1 << 30)]
    files.copy_ranges(one, other, files.differing_ranges(one, other))
    assert files.differing_ranges(one, other) == []
    os.truncate(other, 4096)
    with pytest.raises(Conflict, match="4096"):
        files.differing_ranges(one, other)

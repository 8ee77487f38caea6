"""Downloads from a real server: whole and right, or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from images.downloads import Policy, download, fetch_bytes
from images.downloads.partial import sweep_partials
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound, Retryable
from tests.images.downloads.server import Mirror
from tests.tiny_disk import can_mount, tiny_disk

CONTENT = bytes(range(256)) * 12_000  # 3 MB
SHA256 = hashlib.sha256(CONTENT).hexdigest()
HASTY = Policy(pause=0.01, attempts=3, window=0.5, read_timeout=0.5)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def test_a_file_comes_whole_and_read_only_and_its_progress_is_told(
    mirror: Mirror, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    url = mirror.add("/file", CONTENT)
    done = download(
        url,
        tmp_path / "file",
        sha256=SHA256,
        size=len(CONTENT),
        progress=lambda have, total: told.append((have, total)),
    )
    assert done.path.read_bytes() == CONTENT
    assert (done.sha256, done.size_bytes) == (SHA256, len(CONTENT))
    assert stat.S_IMODE(done.path.stat().st_mode) == 0o400
    assert told == sorted(told)
    assert told[-1] == (len(CONTENT), len(CONTENT))
    assert names(tmp_path) == ["file"]


def test_an_empty_file_is_a_file(mirror: Mirror, tmp_path: Path) -> None:
    done = download(mirror.add("/empty"), tmp_path / "empty")
    assert done.size_bytes == 0
    assert done.path.read_bytes() == b""


def test_a_wrong_checksum_leaves_nothing(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT)
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file", sha256="0" * 64, policy=HASTY)
    assert raised.value.code == "checksum"
    assert SHA256 in raised.value.detail
    assert names(tmp_path) == []


def test_a_file_that_was_there_stays_when_the_new_one_is_wrong(
    mirror: Mirror, tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"before")
    with pytest.raises(Broken):
        download(mirror.add("/file", CONTENT), tmp_path / "file", sha256="0" * 64)
    assert (tmp_path / "file").read_bytes() == b"before"


@pytest.mark.parametrize("length", [True, False])
def test_a_size_that_was_not_promised_is_refused(
    mirror: Mirror, tmp_path: Path, length: bool
) -> None:
    url = mirror.add("/file", CONTENT, length=length)
    for size in (len(CONTENT) - 1, len(CONTENT) + 1):
        with pytest.raises(Broken) as raised:
            download(url, tmp_path / "file", size=size, policy=HASTY)
        assert raised.value.code in ("size", "download-too-large")
    assert names(tmp_path) == []


@pytest.mark.parametrize("length", [True, False])
def test_nothing_may_be_larger_than_the_policy_allows(
    mirror: Mirror, tmp_path: Path, length: bool
) -> None:
    url = mirror.add("/file", CONTENT, length=length)
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file", policy=Policy(max_bytes=1 << 20))
    assert raised.value.code == "download-too-large"
    assert names(tmp_path) == []
    with pytest.raises(Broken) as raised:
        fetch_bytes(url, 1000)
    assert raised.value.code == "download-too-large"


def test_a_cut_connection_is_resumed_where_it_was_cut(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT, cut_after=[1_000_000, 500_000])
    done = download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    assert done.path.read_bytes() == CONTENT
    first, second, third = mirror.ranges("/file")
    assert first is None
    assert second == "bytes=1000000-"
    assert third == "bytes=1500000-"
    assert mirror.requests[-1][1]["if-range"] == mirror.pages["/file"].tag


def test_a_body_that_always_ends_too_soon_is_given_up_and_kept_for_the_next_time(
    mirror: Mirror, tmp_path: Path
) -> None:
    url = mirror.add("/file", CONTENT, cut_after=[100_000] * 3)
    with pytest.raises(Retryable) as raised:
        download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    assert raised.value.code == "connection-lost"
    assert not (tmp_path / "file").exists()
    assert sweep_partials(tmp_path) == []
    assert download(url, tmp_path / "file", sha256=SHA256).sha256 == SHA256
    assert mirror.ranges("/file")[-1] == "bytes=300000-"


def test_without_range_support_it_begins_anew(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT, cut_after=[1_000_000], ranges=False)
    done = download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    assert done.path.read_bytes() == CONTENT
    assert mirror.ranges("/file") == [None, "bytes=1000000-"]


def test_a_file_that_changed_meanwhile_begins_anew(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", b"old" * 1_000_000, cut_after=[100_000] * 3)
    with pytest.raises(Retryable):
        download(url, tmp_path / "file", policy=HASTY)
    mirror.add("/file", CONTENT)
    assert download(url, tmp_path / "file").sha256 == SHA256


def test_a_start_that_turns_out_wrong_is_fetched_once_more(mirror: Mirror, tmp_path: Path) -> None:
    """The server has no ETag, so only the checksum tells that the file has changed."""
    url = mirror.add("/file", b"x" * 3_000_000, etag="", cut_after=[100_000] * 3)
    with pytest.raises(Retryable):
        download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    mirror.add("/file", CONTENT, etag="")
    assert download(url, tmp_path / "file", sha256=SHA256).path.read_bytes() == CONTENT
    assert mirror.ranges("/file")[-2:] == ["bytes=300000-", None]


def test_what_nobody_can_vouch_for_is_not_resumed(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT, etag='W/"weak"', cut_after=[1_000_000])
    assert download(url, tmp_path / "file", policy=HASTY).sha256 == SHA256
    assert mirror.ranges("/file") == [None, None]


def test_errors_of_a_moment_are_forgiven(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT, failures=[500, 503])
    assert download(url, tmp_path / "file", policy=HASTY).sha256 == SHA256
    assert len(mirror.requests) == 3


def test_lasting_errors_are_told_as_they_are(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        download(f"{mirror.url}/nothing?secret=1", tmp_path / "file")
    assert missing.value.code == "download-not-found"
    assert "secret" not in missing.value.text + missing.value.detail
    with pytest.raises(Broken) as denied:
        download(mirror.add("/denied", status=403), tmp_path / "file")
    assert denied.value.code == "download-refused"
    with pytest.raises(Retryable) as failing:
        download(mirror.add("/failing", status=502), tmp_path / "file", policy=HASTY)
    assert failing.value.code == "server-error"
    assert len(mirror.requests) == 2 + HASTY.attempts
    assert names(tmp_path) == []


def test_what_has_come_outlives_a_server_that_lost_the_file(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT, cut_after=[1_000_000] * HASTY.attempts, ranges=False)
    with pytest.raises(Retryable):
        download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    page = mirror.pages.pop("/file")
    with pytest.raises(NotFound):
        download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    assert names(tmp_path) == [".file.download", ".file.download.json"]
    mirror.pages["/file"] = replace(page, ranges=True)
    download(url, tmp_path / "file", sha256=SHA256, policy=HASTY)
    assert mirror.ranges("/file")[-1] == "bytes=1000000-"


def test_a_server_that_is_not_there_can_be_tried_again(tmp_path: Path) -> None:
    for url in ("http://127.0.0.1:1/file", "http://nobody.invalid/file"):
        with pytest.raises(Retryable) as raised:
            download(url, tmp_path / "file", policy=HASTY)
        assert raised.value.code == "unreachable"
        assert names(tmp_path) == []


def test_a_server_that_trickles_is_too_slow(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/file", CONTENT, pause=0.05, piece=10)
    with pytest.raises(Retryable) as raised:
        download(url, tmp_path / "file", policy=HASTY)
    assert raised.value.code == "download-slow"


def test_a_server_that_says_nothing_is_left(mirror: Mirror, tmp_path: Path) -> None:
    over = threading.Event()
    url = mirror.add("/file", CONTENT, before_piece=lambda number: over.wait(20))
    with pytest.raises(Retryable) as raised:
        download(url, tmp_path / "file", policy=HASTY)
    over.set()
    assert raised.value.code == "timeout"


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://host/x", "http://a:b@host/x", "x"])
def test_only_plain_http_urls_are_asked(tmp_path: Path, url: str) -> None:
    with pytest.raises(Invalid) as raised:
        download(url, tmp_path / "file")
    assert raised.value.code == "url-invalid"


def test_a_full_disk_is_said_and_given_back(mirror: Mirror, tmp_path: Path) -> None:
    if not can_mount():
        pytest.skip("this user may not mount a disk")
    for length in (True, False):  # seen before the first byte, and in the middle
        with tiny_disk(tmp_path, 1) as disk:
            with pytest.raises(Retryable) as raised:
                download(mirror.add("/file", CONTENT, length=length), disk / "file")
            assert raised.value.code == "disk-full"
            assert names(disk) == []


def test_two_downloads_of_one_file_are_one(mirror: Mirror, tmp_path: Path) -> None:
    second_is_there = threading.Event()
    url = mirror.add("/file", CONTENT, before_piece=lambda number: second_is_there.wait(20))

    def second() -> object:
        return download(
            url, tmp_path / "file", sha256=SHA256, progress=lambda *_: second_is_there.set()
        )

    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(download, url, tmp_path / "file", sha256=SHA256)
        while not mirror.requests:
            pass
        other = threads.submit(second)
        assert first.result() == other.result()
    assert len(mirror.requests) == 1
    assert names(tmp_path) == ["file"]


def test_whoever_listens_may_stop_it_and_go_on_later(mirror: Mirror, tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        if done > 1_000_000:
            raise Conflict("Cancelled.")

    url = mirror.add("/file", CONTENT)
    with pytest.raises(Conflict):
        download(url, tmp_path / "file", sha256=SHA256, progress=stop)
    assert not (tmp_path / "file").exists()
    assert download(url, tmp_path / "file", sha256=SHA256).sha256 == SHA256
    assert mirror.ranges("/file")[-1] is not None


def test_what_a_check_refuses_is_not_kept(mirror: Mirror, tmp_path: Path) -> None:
    def refuse(path: Path) -> None:
        assert path.read_bytes() == CONTENT
        raise Broken("No.")

    with pytest.raises(Broken, match=r"No\."):
        download(mirror.add("/file", CONTENT), tmp_path / "file", check=refuse)
    assert names(tmp_path) == []


def test_a_file_that_is_there_already_is_checked_as_well(mirror: Mirror, tmp_path: Path) -> None:
    url, looked_at = mirror.add("/file", CONTENT), []
    for _ in range(2):
        download(url, tmp_path / "file", sha256=SHA256, check=looked_at.append)
    assert len(mirror.requests) == 1
    assert looked_at == [tmp_path / ".file.download", tmp_path / "file"]


def test_a_note_without_its_partial_file_is_swept(tmp_path: Path) -> None:
    (tmp_path / ".file.download.json").write_text("{}")
    assert sweep_partials(tmp_path) == []
    assert names(tmp_path) == []


def test_partial_files_are_swept_after_a_day_unless_somebody_works_on_them(
    mirror: Mirror, tmp_path: Path
) -> None:
    def is_swept_now(done: int, total: int) -> None:
        assert sweep_partials(tmp_path, older_than=-1) == []

    download(mirror.add("/file", CONTENT), tmp_path / "file", progress=is_swept_now)
    with pytest.raises(Retryable):
        cut = mirror.add("/other", CONTENT, cut_after=[10] * 3)
        download(cut, tmp_path / "other", policy=HASTY)
    part = tmp_path / ".other.download"
    os.utime(part, (0, 0))
    assert sweep_partials(tmp_path) == [part]
    assert names(tmp_path) == ["file"]


def test_each_way_to_fail_has_a_hint(mirror: Mirror, tmp_path: Path) -> None:
    faults: list[Callable[[], object]] = [
        lambda: download(mirror.add("/a", CONTENT), tmp_path / "a", sha256="0" * 64),
        lambda: download(mirror.add("/b", status=403), tmp_path / "b"),
        lambda: download(mirror.add("/c", status=500), tmp_path / "c", policy=HASTY),
        lambda: download(f"{mirror.url}/d", tmp_path / "d"),
    ]
    for fault in faults:
        with pytest.raises((Broken, NotFound, Retryable)) as raised:
            fault()
        assert raised.value.hint

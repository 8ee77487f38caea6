"""Where a download may go: what was configured anywhere, redirects to public servers alone."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import httpcore2
import pytest

from images.downloads import Policy, download, parse_url
from images.downloads.addresses import CheckedBackend, PrivateAddress, is_public, redirected
from nexus_site.core.errors import Broken
from tests.images.downloads.server import Mirror, running_mirror


@pytest.fixture
def other() -> Iterator[Mirror]:
    """A second server, on an address of its own."""
    with running_mirror("127.0.0.2") as mirror:
        yield mirror


def test_a_redirect_on_the_same_server_is_followed(mirror: Mirror, tmp_path: Path) -> None:
    mirror.add("/there", b"content")
    for location in ("/there", f"{mirror.url}/there", "there"):
        url = mirror.add("/here", status=302, location=location)
        assert download(url, tmp_path / "file").size_bytes == 7


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/file",
        "gopher://127.0.0.1/",
        "http://user:secret@127.0.0.1/file",
        "http://127.0.0.1:22/",
        "http://localhost:9/",
        "http://10.0.0.1/file",
        "http://169.254.169.254/latest/meta-data/",
        "http://[::1]/file",
        "http://[::ffff:127.0.0.1]/file",
        "http://0.0.0.0/file",
        "http://2130706433/file",
        "http://224.0.0.1/file",
        "",
    ],
)
def test_a_redirect_to_where_it_must_not_go_is_refused(
    mirror: Mirror, tmp_path: Path, location: str
) -> None:
    url = mirror.add("/here", status=302, location=location or " ")
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file", policy=Policy(attempts=1, max_redirects=1))
    assert raised.value.code == ("redirect-refused" if location else "redirects")
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_another_private_server_sends_nothing_there(
    mirror: Mirror, other: Mirror, tmp_path: Path
) -> None:
    url = mirror.add("/here", status=307, location=other.add("/file", b"secret"))
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file")
    assert raised.value.code == "redirect-refused"
    assert "127.0.0.2" in raised.value.text
    assert other.requests == []
    assert download(f"{other.url}/file", tmp_path / "file").size_bytes == 6, "configured: allowed"


def test_redirects_come_to_an_end(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/loop", status=301, location="/loop")
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file")
    assert raised.value.code == "redirects"
    assert len(mirror.requests) == 6


def test_encryption_is_not_given_up() -> None:
    here = parse_url("https://mirror.example/file")
    assert redirected(here, "https://cdn.example/file").host == "cdn.example"
    with pytest.raises(Broken, match="from https to http"):
        redirected(here, "http://mirror.example/file")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("100.64.0.1", False),
        ("169.254.169.254", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("::", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::808:808", True),
    ],
)
def test_addresses_are_judged_also_inside_others(address: str, public: bool) -> None:
    assert is_public(address) is public


def test_a_name_is_resolved_once_and_one_private_address_spoils_it(
    mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that answers with a public address first and a private one later gains nothing."""
    port, asked = int(mirror.url.rpartition(":")[2]), []
    answers = [["8.8.8.8", "127.0.0.1"], ["127.0.0.1"]]

    def resolve(host: str, port: int, **_: object) -> list[object]:
        asked.append(host)
        return [(2, 1, 6, "", (address, port)) for address in answers[len(asked) - 1]]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with pytest.raises(PrivateAddress):
        CheckedBackend(False, 1, 1).connect_tcp("evil.example", port, timeout=1)
    assert asked == ["evil.example"]
    connected: list[str] = []

    def connect(self: object, host: str, *_: object) -> httpcore2.NetworkStream:
        connected.append(host)
        raise httpcore2.ConnectError("no")

    monkeypatch.setattr(httpcore2.SyncBackend, "connect_tcp", connect)
    with pytest.raises(httpcore2.ConnectError):
        CheckedBackend(True, 1, 1).connect_tcp("evil.example", port, timeout=1)
    assert connected == ["127.0.0.1"], "the address, not the name"


@pytest.mark.parametrize(
    "url", ["http://host/ü", "http://ho st/", "http://host\\@evil/", "https://", "http://h:99999/"]
)
def test_urls_that_could_be_read_in_two_ways_are_none(url: str) -> None:
    with pytest.raises(ValueError, match=r"URL|[Pp]ort|server"):
        parse_url(url)

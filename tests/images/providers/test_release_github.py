"""Releases from GitHub: what is taken from its list, and what is not taken on trust."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from images.providers.releases import FetchedRelease, ReleaseOffer
from images.providers.releases.github import OFFLINE_HINT, GitHubProvider
from nexus_site.core.errors import Broken, Invalid, NexusError, NotFound, Retryable
from tests.images.downloads.server import Mirror
from tests.images.providers.github_releases import GitHub, release_archive
from tests.images.providers.programs import release

ARCH = "x86_64"
ARCHIVE = release_archive("1.12.1", release("1.12.1"))


@pytest.fixture
def github(mirror: Mirror) -> GitHub:
    return GitHub(mirror)


@pytest.fixture
def provider(github: GitHub) -> GitHubProvider:
    return GitHubProvider(github.base_url)


def fetched(provider: GitHubProvider, directory: Path, version: str = "1.12.1") -> FetchedRelease:
    return provider.fetch(provider.find(version, ARCH, ""), "", directory)


def unpacked(provider: GitHubProvider, directory: Path, archive: bytes) -> list[str]:
    path = directory / "release.tgz"
    path.write_bytes(archive)
    programs = directory / "programs"
    programs.mkdir()
    provider.unpack(FetchedRelease("1.12.1", ARCH, path, "", ""), programs)
    return sorted(found.name for found in programs.iterdir())


def test_the_newest_comes_first_and_drafts_do_not_come(
    github: GitHub, provider: GitHubProvider
) -> None:
    for version in ("1.9.1", "1.12.1", "1.10.0"):
        github.publish(version, ARCHIVE)
    github.publish("1.13.0", ARCHIVE, draft=True)
    github.publish("1.14.0", ARCHIVE, prerelease=True)
    found = provider.refresh(ARCH)
    assert [offer.version for offer in found] == ["1.12.1", "1.10.0", "1.9.1"]
    assert provider.find("", ARCH, "") == found[0]
    assert (found[0].size_bytes, found[0].provider) == (len(ARCHIVE), "github")
    assert provider.refresh("aarch64") == []
    assert provider.find("1.14.0", ARCH, "").version == "1.14.0", "asked for by name"


@pytest.mark.parametrize(
    "entry",
    [
        None,
        "v1.12.1",
        {},
        {"tag_name": "v1.12.1"},
        {"tag_name": "v1.12.1", "assets": "none"},
        {"tag_name": "v1.12.1", "assets": [None, 1, {"name": None}]},
        {"tag_name": "v../../1", "assets": []},
        {"tag_name": None, "assets": []},
    ],
)
def test_entries_that_make_no_sense_are_passed_over(
    github: GitHub, provider: GitHubProvider, entry: object
) -> None:
    github.publish("1.12.1", ARCHIVE)
    github.answer("/releases?per_page=30", [entry, *github.entries])
    assert [offer.version for offer in provider.refresh(ARCH)] == ["1.12.1"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("size", "1"),
        ("size", True),
        ("size", -1),
        ("browser_download_url", None),
        ("name", "other.tgz"),
    ],
)
def test_assets_that_make_no_sense_are_none(
    github: GitHub, provider: GitHubProvider, name: str, value: object
) -> None:
    github.publish("1.12.1", ARCHIVE)
    github.entries[0]["assets"][0][name] = value
    github.answer("/releases?per_page=30", github.entries)
    with pytest.raises(NotFound, match="no release of Firecracker for x86_64"):
        provider.find("", ARCH, "")


@pytest.mark.parametrize("document", [b"<html>", b"{}", b"[" * 100_000, b"\xff"])
def test_a_list_that_is_none_is_told(
    github: GitHub, provider: GitHubProvider, mirror: Mirror, document: bytes
) -> None:
    github.publish("1.12.1", ARCHIVE)
    (path,) = [path for path in mirror.pages if "per_page" in path]
    mirror.add(path, document)
    with pytest.raises(Broken) as refused:
        provider.refresh(ARCH)
    assert "NEXUS_FIRECRACKER_RELEASES_URL" in refused.value.hint
    assert OFFLINE_HINT in refused.value.hint


def test_a_release_is_fetched_and_its_programs_taken_out(
    github: GitHub, provider: GitHubProvider, tmp_path: Path
) -> None:
    github.publish("1.12.1", ARCHIVE)
    found = fetched(provider, tmp_path)
    assert found.path.read_bytes() == ARCHIVE
    assert (found.version, found.verification, found.ours) == ("1.12.1", "sha256", True)
    assert found.source.endswith("/v1.12.1/firecracker-v1.12.1-x86_64.tgz")
    programs = tmp_path / "programs"
    programs.mkdir()
    provider.unpack(found, programs)
    assert {path.name: path.read_bytes() for path in programs.iterdir()} == release("1.12.1")
    assert {path.stat().st_mode & 0o7777 for path in programs.iterdir()} == {0o555}


def test_what_was_fetched_before_is_not_fetched_again(
    github: GitHub, provider: GitHubProvider, mirror: Mirror, tmp_path: Path
) -> None:
    path = github.publish("1.12.1", ARCHIVE)
    fetched(provider, tmp_path)
    fetched(provider, tmp_path)
    assert [seen for seen, _ in mirror.requests].count(path) == 1


def test_a_download_that_broke_off_goes_on(
    github: GitHub, provider: GitHubProvider, mirror: Mirror, tmp_path: Path
) -> None:
    path = github.publish("1.12.1", ARCHIVE)
    mirror.pages[path].cut_after = [200]
    assert fetched(provider, tmp_path).path.read_bytes() == ARCHIVE
    assert mirror.ranges(path) == [None, "bytes=200-"]


def test_a_wrong_checksum_leaves_nothing(
    github: GitHub, provider: GitHubProvider, tmp_path: Path
) -> None:
    github.publish("1.12.1", ARCHIVE, checksum="0" * 64)
    with pytest.raises(Broken) as refused:
        fetched(provider, tmp_path)
    assert refused.value.code == "checksum"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("checksum", [b"", b"nonsense", b"0" * 64 + b"  other.tgz\n", b"\0" * 5000])
def test_a_checksum_file_that_is_none_is_refused(
    github: GitHub, provider: GitHubProvider, mirror: Mirror, tmp_path: Path, checksum: bytes
) -> None:
    path = github.publish("1.12.1", ARCHIVE)
    mirror.add(f"{path}.sha256.txt", checksum)
    with pytest.raises(Broken):
        fetched(provider, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_version_that_nobody_released_is_not_found(
    github: GitHub, provider: GitHubProvider
) -> None:
    github.publish("1.12.1", ARCHIVE)
    with pytest.raises(NotFound, match=r"no Firecracker 9\.9\.9 for x86_64") as missing:
        provider.find("9.9.9", ARCH, "")
    assert "list --refresh" in missing.value.hint
    github.answer("/releases/tags/v9.9.9", github.entries[0])
    with pytest.raises(NotFound):
        provider.find("9.9.9", ARCH, "")


@pytest.mark.parametrize(("version", "path"), [("../1", ""), ("1.12", ""), ("1.12.1", "/tmp/x")])
def test_wishes_that_cannot_be_fulfilled_are_told_at_once(version: str, path: str) -> None:
    with pytest.raises(Invalid):
        GitHubProvider("http://127.0.0.1:1").check(version, path)


def test_out_of_reach_it_says_what_else_there_is(
    provider: GitHubProvider, mirror: Mirror, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.downloads.fetching._wait", lambda seconds, pulse: None)
    with pytest.raises(Retryable) as offline:
        GitHubProvider("http://127.0.0.1:1").refresh(ARCH)
    assert offline.value.hint.endswith(OFFLINE_HINT)
    assert OFFLINE_HINT.count("--provider") == 2


def test_where_the_list_leads_must_be_public_unless_it_is_the_same_server(
    github: GitHub, provider: GitHubProvider, tmp_path: Path
) -> None:
    elsewhere = github.mirror.url.replace("127.0.0.1", "127.0.0.2")
    github.publish("1.12.1", ARCHIVE, host=elsewhere)
    with pytest.raises(NexusError) as refused:
        fetched(provider, tmp_path)
    assert refused.value.code == "redirect-refused"
    assert "not a public one" in refused.value.text


@pytest.mark.parametrize("host", ["file:///etc", "ftp://example.org", "http://user:word@x"])
def test_a_list_that_leads_to_no_web_address_is_refused(
    github: GitHub, provider: GitHubProvider, tmp_path: Path, host: str
) -> None:
    github.publish("1.12.1", ARCHIVE, host=host)
    with pytest.raises(Broken) as refused:
        fetched(provider, tmp_path)
    assert refused.value.code == "redirect-refused"


# Hostile tarballs, whose checksum is right


def info(name: str, type_: bytes, **values: object) -> tarfile.TarInfo:
    made = tarfile.TarInfo(f"release-v1.12.1-x86_64/{name}")
    made.type = type_
    for key, value in values.items():
        setattr(made, key, value)
    return made


def test_an_archive_without_a_jailer_will_do(provider: GitHubProvider, tmp_path: Path) -> None:
    programs = {"firecracker": release("1.12.1")["firecracker"]}
    assert unpacked(provider, tmp_path, release_archive("1.12.1", programs)) == ["firecracker"]


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        (info("firecracker-v1.12.1-x86_64", tarfile.SYMTYPE, linkname="/etc/passwd"), "is no file"),
        (info("jailer-v1.12.1-x86_64", tarfile.LNKTYPE, linkname="SHA256SUMS"), "is no file"),
        (info("firecracker-v1.12.1-x86_64", tarfile.FIFOTYPE), "is no file"),
        (info("firecracker-v1.12.1-x86_64", tarfile.DIRTYPE), "is no file"),
        (info("firecracker-v1.12.1-x86_64", tarfile.REGTYPE), "in it twice"),
        (info("../../etc/cron.d/x", tarfile.REGTYPE), "may not contain"),
    ],
)
def test_links_devices_and_ways_out_are_refused(
    provider: GitHubProvider, tmp_path: Path, entry: tarfile.TarInfo, said: str
) -> None:
    archive = release_archive("1.12.1", release("1.12.1"), ARCH, entry)
    with pytest.raises(Invalid, match=said):
        unpacked(provider, tmp_path, archive)


def test_other_files_in_it_are_never_written(provider: GitHubProvider, tmp_path: Path) -> None:
    link = info("other", tarfile.SYMTYPE, linkname="/etc/passwd")
    archive = release_archive("1.12.1", release("1.12.1"), ARCH, link)
    assert unpacked(provider, tmp_path, archive) == ["firecracker", "jailer"]


@pytest.mark.parametrize(
    ("archive", "code"),
    [
        (ARCHIVE[:250], "archive-damaged"),
        (b"<html>not found</html>" * 40, "archive-damaged"),
        (release_archive("1.12.2", release("1.12.1")), "release-archive"),
        (release_archive("1.12.1", {"jailer": b"x"}), "release-archive"),
    ],
)
def test_what_is_no_such_release_is_refused(
    provider: GitHubProvider, tmp_path: Path, archive: bytes, code: str
) -> None:
    with pytest.raises(Invalid) as refused:
        unpacked(provider, tmp_path, archive)
    assert refused.value.code == code


def test_a_program_that_is_far_too_large_ends_early(
    provider: GitHubProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.providers.releases.binaries.MAX_BINARY", 1 << 20)
    archive = release_archive("1.12.1", {"firecracker": bytes(8 << 20)})
    with pytest.raises(Invalid) as refused:
        unpacked(provider, tmp_path, archive)
    assert refused.value.code == "release-too-large"
    assert sum(path.stat().st_size for path in (tmp_path / "programs").iterdir()) <= 1 << 20


def test_an_archive_that_unpacks_to_far_too_much_ends_early(
    provider: GitHubProvider, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("images.providers.releases.github._MAX_UNPACKED", 1 << 20)
    with pytest.raises(Invalid) as refused:
        unpacked(provider, tmp_path, release_archive("1.12.1", {"debug": bytes(8 << 20)}))
    assert refused.value.code == "archive-too-large"


def test_offers_are_plain_values(github: GitHub, provider: GitHubProvider) -> None:
    github.publish("1.12.1", ARCHIVE)
    (offer,) = provider.refresh(ARCH)
    assert offer == ReleaseOffer(**vars(offer))
    assert provider.offers(ARCH) == ()
    assert io.BytesIO(ARCHIVE).read(2) == b"\x1f\x8b"

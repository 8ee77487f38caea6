"""Alpine's releases from a mirror of the real layout, and mirrors that cannot be trusted."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from images.providers import open_provider, provider_type
from images.providers.alpine import AlpineProvider
from nexus_site.core.errors import Broken, Invalid, NexusError, NotFound
from tests.images.downloads.keys import Key
from tests.images.downloads.server import Mirror
from tests.images.providers.alpine_mirror import AlpineMirror

ARCH = platform.machine()


@pytest.fixture
def alpine(mirror: Mirror) -> AlpineMirror:
    """A mirror with 3.23.2 as the newest, 3.22.4 before it, and 3.22.1 out of the list."""
    alpine = AlpineMirror(mirror, ARCH, Key())
    alpine.publish("3.22.1")
    alpine.publish("3.22.4")
    alpine.publish("3.23.2", "latest-stable")
    return alpine


def provider(alpine: AlpineMirror, **config: str) -> AlpineProvider:
    return AlpineProvider("mirror", {"base_url": alpine.base_url} | config)


def test_it_offers_the_newest_release_of_each_maintained_branch(alpine: AlpineMirror) -> None:
    mirror = provider(alpine)
    assert mirror.offers() == ()
    offers = mirror.refresh()
    assert [offer.version for offer in offers] == ["3.23.2", "3.22.4"]
    assert {(o.distro, o.arch, o.provider, o.format) for o in offers} == {
        ("alpine", ARCH, "mirror", "tar.gz")
    }
    assert offers[0].size_bytes == len(alpine.contents["3.23.2"])
    assert offers[0].source.startswith(f"{alpine.base_url}/v3.23/releases/")


@pytest.mark.parametrize(
    ("wish", "version"),
    [("3.23", "3.23.2"), ("3.23.2", "3.23.2"), ("3.22", "3.22.4"), ("3.22.1", "3.22.1")],
)
def test_a_version_is_found_and_fetched(
    alpine: AlpineMirror, tmp_path: Path, wish: str, version: str
) -> None:
    mirror = provider(alpine)
    offer = mirror.find("alpine", wish, ARCH)
    assert offer is not None
    assert offer.version == version
    fetched = mirror.fetch(offer, tmp_path)
    assert fetched.path.read_bytes() == alpine.contents[version]
    assert (fetched.format, fetched.verification) == ("tar.gz", "sha256")
    assert fetched.source == offer.source


@pytest.mark.parametrize("wish", ["3.99", "3.23.9", "latest", "../v3.23", "3", ""])
def test_what_the_mirror_does_not_have_is_not_found(alpine: AlpineMirror, wish: str) -> None:
    assert provider(alpine).find("alpine", wish, ARCH) is None
    assert provider(alpine).find("debian", "12", ARCH) is None


def test_with_a_keyring_the_signature_is_checked(alpine: AlpineMirror, tmp_path: Path) -> None:
    assert alpine.key is not None
    mirror = provider(alpine, keyring=alpine.key.armored)
    offer = mirror.refresh()[0]
    fetched = mirror.fetch(offer, tmp_path)
    assert fetched.verification == f"sha256, OpenPGP {alpine.key.fingerprint}"


def test_a_missing_or_wrong_signature_is_refused(alpine: AlpineMirror, tmp_path: Path) -> None:
    assert alpine.key is not None
    mirror = provider(alpine, keyring=alpine.key.armored)
    offer = mirror.refresh()[0]
    signature = f"{alpine.place('v3.23')}/{offer.filename}.asc"
    alpine.mirror.add(signature, Key().sign_bytes(alpine.contents["3.23.2"]))
    with pytest.raises(Broken) as wrong:
        mirror.fetch(offer, tmp_path)
    del alpine.mirror.pages[signature]
    with pytest.raises(Broken) as missing:
        mirror.fetch(offer, tmp_path)
    assert wrong.value.code == missing.value.code == "signature-invalid"
    assert list(tmp_path.iterdir()) == []


def test_list_and_checksum_file_must_agree(alpine: AlpineMirror, tmp_path: Path) -> None:
    mirror = provider(alpine)
    offer = mirror.refresh()[0]
    alpine.publish("3.23.2", lies={"sha256": "f" * 64})
    with pytest.raises(Broken, match="contradicts itself"):
        mirror.fetch(offer, tmp_path)


def test_another_file_than_the_checksums_say_is_refused(
    alpine: AlpineMirror, tmp_path: Path
) -> None:
    mirror = provider(alpine)
    offer = mirror.refresh()[0]
    size = len(alpine.contents["3.23.2"])
    alpine.mirror.add(f"{alpine.place('v3.23')}/{offer.filename}", bytes(size))
    with pytest.raises(Broken) as raised:
        mirror.fetch(offer, tmp_path)
    assert raised.value.code == "checksum"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "entry",
    [
        {"file": "../../../../etc/passwd"},
        {"file": "/etc/passwd"},
        {"file": "alpine-minirootfs-3.23.1-x86_64.tar.gz"},
        {"version": "3.23.2/../.."},
        {"version": "3.23"},
        {"version": "[1, 2]"},
        {"arch": "sparc"},
        {"sha256": "abc"},
        {"sha256": "null"},
        {"size": "-1"},
        {"size": "many"},
        {"size": "99999999999999"},
        {"flavor": "alpine-standard"},
    ],
    ids=str,
)
def test_a_list_that_lies_is_not_used(alpine: AlpineMirror, entry: dict[str, object]) -> None:
    alpine.publish("3.23.2", "latest-stable", lies=entry)
    with pytest.raises(Broken) as raised:
        provider(alpine).refresh()
    assert raised.value.code == "publisher-answer"


@pytest.mark.parametrize(
    "document",
    [b"", b"\0", b"hello", b"[" * 100_000, b"- !!python/object:os.system x", b"x: &a [*a]"],
)
def test_a_document_that_is_no_list_is_not_used(alpine: AlpineMirror, document: bytes) -> None:
    alpine.mirror.add(f"{alpine.place('latest-stable')}/latest-releases.yaml", document)
    with pytest.raises(Broken) as raised:
        provider(alpine).refresh()
    assert raised.value.code == "publisher-answer"


def test_a_list_without_end_is_not_read_to_its_end(alpine: AlpineMirror) -> None:
    path = f"{alpine.place('latest-stable')}/latest-releases.yaml"
    alpine.mirror.add(path, b"- x\n" * 1_000_000)
    with pytest.raises(Broken) as raised:
        provider(alpine).refresh()
    assert raised.value.code == "download-too-large"


def test_a_mirror_without_alpine_is_not_found(mirror: Mirror) -> None:
    with pytest.raises(NotFound):
        AlpineProvider("mirror", {"base_url": f"{mirror.url}/nothing"}).refresh()


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({"base_url": "file:///srv/alpine"}, "base_url"),
        ({"base_url": "http://user:secret@mirror/alpine"}, "base_url"),
        ({"base_url": "http://mirror/alpine?x=1"}, "base_url"),
        ({"base_url": 7}, "base_url"),
        ({"keyring": "no keyring"}, "keyring"),
        ({"key_ring": "x"}, "key_ring"),
    ],
)
def test_a_configuration_is_checked_field_by_field(config: dict[str, object], field: str) -> None:
    with pytest.raises(Invalid) as raised:
        provider_type("alpine").check(config)
    assert raised.value.extra["errors"][0]["field"] == f"config.{field}"


def test_an_empty_configuration_means_the_cdn() -> None:
    checked = provider_type("alpine").check({})
    assert checked["base_url"].startswith("https://")
    assert open_provider("x", "alpine", checked).serves("alpine")


def test_errors_have_hints(alpine: AlpineMirror) -> None:
    alpine.mirror.add(f"{alpine.place('latest-stable')}/latest-releases.yaml", b"hello")
    with pytest.raises(NexusError) as raised:
        provider(alpine).refresh()
    assert raised.value.hint

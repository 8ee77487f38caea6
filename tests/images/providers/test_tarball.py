"""One file that an operator points at: downloaded or copied, and refused unless it is right."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from pathlib import Path

import pytest

from images.providers import open_provider, provider_type
from images.providers.base import FetchedRootfs, RootfsOffer
from nexus_site.core.errors import Broken, Invalid, NotFound
from tests.images.downloads.server import Mirror
from tests.images.providers.alpine_mirror import mini_rootfs

CONTENT = mini_rootfs("1")
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def container_image() -> bytes:
    """An OCI layout without layers: enough to be told from other archives."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, text in (
            ("oci-layout", json.dumps({"imageLayoutVersion": "1.0.0"})),
            ("index.json", json.dumps({"schemaVersion": 2, "manifests": []})),
        ):
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    return buffer.getvalue()


def fetch(directory: Path, type_name: str = "tarball", **config: str) -> FetchedRootfs:
    config = {"distro": "void", "version": "1", **config}
    provider = open_provider("mine", type_name, provider_type(type_name).check(config))
    (offer,) = provider.offers()
    assert provider.find(offer.distro, offer.version, offer.arch) == offer
    return provider.fetch(offer, directory)


def test_the_configured_file_is_offered_without_asking() -> None:
    config = {"url": "http://host/a%20b.tar.gz", "sha256": SHA256, "distro": "Void", "version": "1"}
    (offer,) = open_provider("mine", "tarball", provider_type("tarball").check(config)).offers()
    assert offer == RootfsOffer(
        "void", "1", offer.arch, "mine", "rootfs", None, "", source=config["url"]
    )


def test_a_url_is_fetched_and_its_format_is_found_by_looking(
    mirror: Mirror, tmp_path: Path
) -> None:
    url = mirror.add("/void.tar.gz", CONTENT)
    fetched = fetch(tmp_path, url=url, sha256=SHA256.upper())
    assert fetched.path == tmp_path / "void.tar.gz"
    assert (fetched.format, fetched.sha256) == ("tar.gz", SHA256)
    assert (fetched.source, fetched.verification) == (url, "sha256")


def test_a_file_of_the_server_is_copied(tmp_path: Path) -> None:
    source = tmp_path / "void.tar.gz"
    source.write_bytes(CONTENT)
    (tmp_path / "kept").mkdir()
    fetched = fetch(tmp_path / "kept", path=str(source), sha256=SHA256)
    assert fetched.path.read_bytes() == CONTENT
    with pytest.raises(Broken) as wrong:
        fetch(tmp_path / "kept", path=str(source), sha256="0" * 64)
    assert wrong.value.code == "checksum"
    with pytest.raises(NotFound):
        fetch(tmp_path / "kept", path=str(tmp_path / "nothing"), sha256=SHA256)


def test_the_checksum_may_be_that_of_the_content(mirror: Mirror, tmp_path: Path) -> None:
    url = mirror.add("/void.tar.gz", CONTENT)
    inner = hashlib.sha256(gzip.decompress(CONTENT)).hexdigest()
    fetched = fetch(tmp_path, url=url, content_sha256=inner)
    assert (fetched.sha256, fetched.verification) == (SHA256, "sha256 of its content")
    with pytest.raises(Broken):
        fetch(tmp_path, url=url, content_sha256="0" * 64)


@pytest.mark.parametrize("content", [b"hello", b"", b"<html>" * 1000])
def test_what_is_no_root_file_system_is_refused(
    mirror: Mirror, tmp_path: Path, content: bytes
) -> None:
    url = mirror.add("/void", content)
    with pytest.raises(Invalid) as raised:
        fetch(tmp_path, url=url, sha256=hashlib.sha256(content).hexdigest())
    assert raised.value.code == "format-unknown"
    assert list(tmp_path.iterdir()) == []


def test_a_container_image_is_one_and_an_archive_is_none(mirror: Mirror, tmp_path: Path) -> None:
    image = container_image()
    url = mirror.add("/image.tar", image)
    sha256 = hashlib.sha256(image).hexdigest()
    assert fetch(tmp_path, "oci", url=url, sha256=sha256).format == "oci"
    with pytest.raises(Invalid, match="no container image"):
        fetch(tmp_path, "oci", url=mirror.add("/void", CONTENT), sha256=SHA256)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"url": ""}, "url"),
        ({"path": "/srv/x"}, "url"),
        ({"url": "", "path": "srv/x"}, "path"),
        ({"sha256": ""}, "sha256"),
        ({"sha256": "abc"}, "sha256"),
        ({"distro": ""}, "distro"),
        ({"distro": "a/b"}, "distro"),
        ({"version": "../1"}, "version"),
        ({"arch": "sparc"}, "arch"),
        ({"format": "zip"}, "format"),
        ({"nothing": "x"}, "nothing"),
    ],
)
def test_a_configuration_is_checked_field_by_field(changes: dict[str, str], field: str) -> None:
    good = {"url": "http://host/x", "sha256": SHA256, "distro": "void", "version": "1"}
    with pytest.raises(Invalid) as raised:
        provider_type("tarball").check(good | changes)
    assert raised.value.extra["errors"][0]["field"] == f"config.{field}"

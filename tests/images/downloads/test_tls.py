"""Servers that prove who they are, and servers that cannot."""

from __future__ import annotations

import shutil
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from images.downloads import Policy, download
from nexus_site.core.errors import Broken
from tests.images.downloads.server import Mirror, running_mirror

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs openssl")
ONCE = Policy(attempts=1)


def certificate(directory: Path, address: str) -> Path:
    """A certificate that its own key has signed, and the key, in one file."""
    path = directory / f"{address}.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
               "-nodes", "-keyout", path, "-out", f"{path}.crt", "-days", "2",
               "-subj", "/CN=mirror", "-addext", f"subjectAltName=IP:{address}"]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True)
    path.write_text(path.read_text() + Path(f"{path}.crt").read_text())
    return path


@pytest.fixture(params=["127.0.0.1", "127.0.0.9"])
def named(request: pytest.FixtureRequest) -> str:
    """The address in the server's certificate; its own is 127.0.0.1."""
    return str(request.param)


@pytest.fixture
def secure(tmp_path: Path, named: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mirror]:
    """A server whose certificate this machine trusts."""
    path = certificate(tmp_path, named)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with running_mirror(tls=context) as mirror:
        yield mirror


def test_a_server_must_be_who_it_says(secure: Mirror, named: str, tmp_path: Path) -> None:
    url = secure.add("/file", b"content")
    if named in secure.url:
        assert download(url, tmp_path / "file").size_bytes == 7
        return
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file", policy=ONCE)
    assert raised.value.code == "certificate"
    assert secure.requests == []


def test_a_server_must_be_known(
    secure: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = secure.add("/file", b"content")
    monkeypatch.delenv("SSL_CERT_FILE")
    with pytest.raises(Broken) as raised:
        download(url, tmp_path / "file", policy=ONCE)
    assert raised.value.code == "certificate"
    assert secure.requests == []

"""Servers that prove who they are, and servers that cannot."""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from images.downloads import Policy, download
from nexus_site.core.errors import Broken
from tests.images.downloads.server import Mirror, running_mirror

ONCE = Policy(attempts=1)


def certificate(directory: Path, address: str) -> Path:
    """A certificate that its own key has signed, and the key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mirror")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(address))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = directory / f"{address}.pem"
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(private + signed.public_bytes(Encoding.PEM))
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

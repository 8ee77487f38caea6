"""Real OpenPGP signatures by real keys, good and bad; checksums of what is compressed."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import lzma
from pathlib import Path

import pysequoia
import pytest

from images.downloads import check_content, check_keyring, verify_detached
from nexus_site.core.errors import Broken, Invalid
from tests.images.downloads.keys import Key


@pytest.fixture(scope="module")
def publisher() -> Key:
    return Key()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_bytes(b"content" * 1_000_000)
    return path


def test_a_good_signature_names_the_certificate(publisher: Key, file: Path) -> None:
    told: list[tuple[int, int]] = []
    signature = publisher.sign(file)
    keyring = f"A comment.\n{Key().armored}\n{publisher.armored}"
    found = verify_detached(file, signature, keyring, lambda *done: told.append(done))
    assert found == publisher.fingerprint
    assert told[-1] == (7_000_000, 7_000_000)
    assert list(file.parent.iterdir()) == [file]


def test_another_key_s_signature_is_refused(publisher: Key, file: Path) -> None:
    with pytest.raises(Broken) as raised:
        verify_detached(file, Key().sign(file), publisher.armored)
    assert raised.value.code == "signature-invalid"
    assert "backtrace" not in raised.value.detail
    assert list(file.parent.iterdir()) == [file]


def test_a_signature_of_something_else_is_refused(publisher: Key, file: Path) -> None:
    signature = publisher.sign(file)
    with file.open("ab") as changed:
        changed.write(b"x")
    with pytest.raises(Broken) as raised:
        verify_detached(file, signature, publisher.armored)
    assert raised.value.code == "signature-invalid"


@pytest.mark.parametrize("signature", [b"", b"nonsense", b"-----BEGIN PGP SIGNATURE-----\n"])
def test_what_is_no_signature_is_refused(publisher: Key, file: Path, signature: bytes) -> None:
    with pytest.raises(Broken) as raised:
        verify_detached(file, signature, publisher.armored)
    assert raised.value.code == "signature-invalid"


def test_whoever_listens_may_stop_it(publisher: Key, file: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        verify_detached(file, publisher.sign(file), publisher.armored, stop)
    assert list(file.parent.iterdir()) == [file]


def test_a_keyring_holds_public_certificates(publisher: Key) -> None:
    assert check_keyring(publisher.armored) == publisher.armored
    armored_secret = str(publisher.secret)
    for text in ("hello", publisher.armored[:200], armored_secret):
        with pytest.raises(ValueError, match=r"keyring|private key"):
            check_keyring(text)


def test_a_revoked_key_vouches_for_nothing(file: Path) -> None:
    key = Key()
    signature = key.sign(file)
    certificate = key.certificate
    revocation = certificate.revoke(key.secret.certifier())
    revoked = pysequoia.Cert.from_bytes(bytes(certificate) + bytes(revocation))
    with pytest.raises(Broken) as raised:
        verify_detached(file, signature, str(revoked))
    assert raised.value.code == "signature-invalid"


CONTENT = b"content" * 100_000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, bz2.compress], ids=lambda pack: pack.__module__
)
def test_the_content_s_checksum_is_that_of_the_decompressed_file(
    tmp_path: Path, pack: type[bytes]
) -> None:
    path = tmp_path / "file"
    path.write_bytes(pack(CONTENT))
    check_content(path, SHA256)
    with pytest.raises(Broken) as raised:
        check_content(path, "0" * 64)
    assert raised.value.code == "checksum"


def test_a_bomb_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "file"
    packer = lzma.LZMACompressor()
    with path.open("wb") as file:
        for _ in range(300):
            file.write(packer.compress(bytes(1 << 20)))
        file.write(packer.flush())
    with pytest.raises(Invalid) as raised:
        check_content(path, SHA256)
    assert raised.value.code == "archive-too-large"

"""Texts signed within themselves: kernel.org's own, and by keys like its own, good and bad."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from builds.kernels.kernel_org import AUTOSIGNER
from images.downloads import signed_text, verify_detached, verify_inline
from nexus_site.core.errors import Broken, Conflict
from tests.images.downloads.gnupg import GnupgKey
from tests.images.downloads.keys import Key

#: As kernel.org signed it in 2023, beside old releases of git.
REAL = Path(__file__).with_name("kernel_org_sha256sums.asc")
TEXT = f"{'7' * 64}  linux-6.12.58.tar.xz\n- a line that begins with a dash\n"


@pytest.fixture
def new_key() -> Iterator[Callable[..., GnupgKey]]:
    made: list[GnupgKey] = []
    with tempfile.TemporaryDirectory(prefix="gpg") as homes:

        def new(**values: str) -> GnupgKey:
            made.append(GnupgKey(Path(homes) / str(len(made)), **values))
            return made[-1]

        yield new
        for key in made:
            key.close()


@pytest.fixture
def key(new_key: Callable[..., GnupgKey]) -> GnupgKey:
    return new_key()


def refused(document: bytes, keyring: str, into: Path) -> str:
    """Why it is; nothing is left of it."""
    with pytest.raises(Broken) as raised:
        verify_inline("sums", document, keyring, into)
    assert raised.value.code == "signature-invalid"
    assert list(into.iterdir()) == []
    return raised.value.detail


def test_what_kernel_org_signed_is_believed(tmp_path: Path) -> None:
    text, signer = verify_inline("sums", REAL.read_bytes(), AUTOSIGNER.read_text(), tmp_path)
    assert signer == "B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1"
    assert len(text.splitlines()) == 12
    assert text.startswith("66774342ec58fe90d50a98879bb92991fda6b858e0a6b24592325a0140725681  git-")
    assert list(tmp_path.iterdir()) == []


def test_what_kernel_org_did_not_sign_is_refused(key: GnupgKey, tmp_path: Path) -> None:
    changed = REAL.read_bytes().replace(b"66774342", b"66774343")
    assert "BAD signature" in refused(changed, AUTOSIGNER.read_text(), tmp_path)
    assert "No public key" in refused(key.clear_sign(TEXT), AUTOSIGNER.read_text(), tmp_path)


def test_sha1_in_the_certificate_does_not_matter(key: GnupgKey, tmp_path: Path) -> None:
    (tmp_path / "file").write_text(TEXT)
    detached = key.gpg("--detach-sign", "--digest-algo", "SHA256", said=TEXT.encode())
    with pytest.raises(Broken):  # the certificate is really one of these
        verify_detached(tmp_path / "file", detached, key.armored)
    keyring = f"{Key().armored}\n{key.armored}"
    assert verify_inline("sums", key.clear_sign(TEXT), keyring, tmp_path) == (TEXT, key.fingerprint)


def test_a_subkey_signs_for_its_certificate(key: GnupgKey, tmp_path: Path) -> None:
    key.add_signing_subkey()
    signed = key.clear_sign(TEXT)
    assert verify_inline("sums", signed, key.armored, tmp_path) == (TEXT, key.fingerprint)


def test_new_certificates_do_as_well(tmp_path: Path) -> None:
    key = Key()
    text, signer = verify_inline("sums", key.clear_sign(TEXT), key.armored, tmp_path)
    assert (text.rstrip("\n"), signer) == (TEXT.rstrip("\n"), key.fingerprint)


@pytest.mark.parametrize("digest", ["SHA1", "RIPEMD160", "SHA224"])
def test_a_weak_digest_of_the_text_is_refused(key: GnupgKey, tmp_path: Path, digest: str) -> None:
    signed = key.clear_sign(TEXT, digest=digest)
    assert "no SHA-256" in refused(signed, key.armored, tmp_path)


def test_a_revoked_key_vouches_for_nothing(key: GnupgKey, tmp_path: Path) -> None:
    signed = key.clear_sign(TEXT)
    verify_inline("sums", signed, key.armored, tmp_path)
    key.revoke()
    assert "is revoked" in refused(signed, key.armored, tmp_path)


def test_an_expired_key_vouches_for_nothing(
    new_key: Callable[..., GnupgKey], tmp_path: Path
) -> None:
    key = new_key(lasts="1y")
    signed = key.clear_sign(TEXT, "--faked-system-time", "20130301T000000")
    assert "key that signed it has expired" in refused(signed, key.armored, tmp_path)


def test_an_expired_signature_is_refused(key: GnupgKey, tmp_path: Path) -> None:
    options = ("--faked-system-time", "20200101T000000", "--default-sig-expire", "1d")
    signed = key.clear_sign(TEXT, *options)
    assert "signature has expired" in refused(signed, key.armored, tmp_path)


def test_a_second_signature_is_refused(
    key: GnupgKey, new_key: Callable[..., GnupgKey], tmp_path: Path
) -> None:
    other = new_key()
    key.take(other)
    users = ("--local-user", key.fingerprint, "--local-user", other.fingerprint)
    keyring = key.gpg("--armor", "--export", key.fingerprint).decode()
    signed = key.clear_sign(TEXT, *users)
    assert "more than one signature" in refused(signed, keyring, tmp_path)
    assert "more than one signature" in refused(signed, key.armored, tmp_path)


def test_a_second_text_is_refused(
    key: GnupgKey, new_key: Callable[..., GnupgKey], tmp_path: Path
) -> None:
    other = new_key().clear_sign("evil\n")
    refused(key.clear_sign(TEXT) + other, key.armored, tmp_path)
    refused(other + key.clear_sign(TEXT), key.armored, tmp_path)
    assert refused(TEXT.encode(), key.armored, tmp_path)


def test_without_gpgv_it_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(signed_text, "GPGV", "gpgv-is-not-here")
    with pytest.raises(Conflict) as raised:
        verify_inline("sums", REAL.read_bytes(), AUTOSIGNER.read_text(), tmp_path)
    assert "apt-get install -y gpgv" in raised.value.hint

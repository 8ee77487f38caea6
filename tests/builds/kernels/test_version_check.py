"""What the publisher says of a version, and what is made of it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from builds import services
from builds.kernels import toolchain
from images.downloads import signed_text
from nexus_site.core.errors import Invalid
from nexus_site.core.models import Operation
from tests.builds.kernels.conftest import run
from tests.builds.kernels.kernel_org_mirror import KernelOrgMirror
from tests.images.downloads.gnupg import GnupgKey
from tests.images.downloads.keys import Key
from tests.images.downloads.test_signed_text import REAL

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]

DIGESTS = ("SHA256", "SHA1")
SUMS = "/pub/linux/kernel/v6.x/sha256sums.asc"


@pytest.fixture(autouse=True)
def _releases(kernel_org: KernelOrgMirror) -> None:
    kernel_org.announce("6.19-rc3", "mainline")
    kernel_org.announce("6.18.2")
    kernel_org.announce("6.1.150", "longterm")
    kernel_org.announce("6.17.9", eol=True)
    kernel_org.announce("next-20251113", "linux-next")
    for version in ("6.18.2", "6.1.5"):
        kernel_org.publish(version, version.encode())


def check(version: str = "") -> Operation:
    return run(services.check_kernel_version(version))


def test_the_latest_stable_one_can_be_built(kernel_org: KernelOrgMirror) -> None:
    operation = check()
    assert operation.state == "succeeded", operation.error
    found = operation.result
    assert (found["version"], found["moniker"], found["eol"]) == ("6.18.2", "stable", False)
    assert (found["available"], found["checksums_ready"], found["buildable"]) == (True, True, True)
    assert found["problems"] == []
    assert found["signer"] == kernel_org.key.fingerprint
    assert found["released"] == "2025-11-13"
    assert found["source"].endswith("/v6.x/linux-6.18.2.tar.xz")


def test_an_old_one_is_known_by_its_checksum_alone() -> None:
    found = check("6.1.5").result
    assert (found["moniker"], found["buildable"]) == ("", True)


def test_a_new_one_may_wait_for_its_checksum() -> None:
    found = check("6.1.150").result
    assert (found["available"], found["checksums_ready"], found["buildable"]) == (
        True,
        False,
        False,
    )
    assert found["problems"] == ["The signed checksum of Linux 6.1.150 is not there yet."]


def test_a_version_that_does_not_exist_is_told() -> None:
    found = check("6.1.999").result
    assert (found["available"], found["buildable"]) == (False, False)
    assert found["problems"] == ["There is no Linux 6.1.999."]


def test_a_series_that_does_not_exist_is_told() -> None:
    assert check("9.1").result["problems"] == ["There is no Linux 9.1."]


def test_end_of_life_is_told() -> None:
    assert check("6.17.9").result["eol"] is True


def test_without_a_keyring_kernel_org_s_autosigner_must_have_signed(
    kernel_org: KernelOrgMirror, settings: Any
) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"kernel_keyring": None})
    error = check("6.18.2").error
    assert error["code"] == "signature-invalid"
    assert "NEXUS_KERNEL_KEYRING" in error["hint"]
    kernel_org.mirror.add(SUMS, REAL.read_bytes())  # of git's releases
    assert check("6.18.2").result["problems"] == [
        "The signed checksum of Linux 6.18.2 is not there yet."
    ]


def test_a_certificate_like_kernel_org_s_will_do(
    kernel_org: KernelOrgMirror, settings: Any, tmp_path: Path
) -> None:
    with tempfile.TemporaryDirectory(prefix="gpg") as home:
        key = GnupgKey(Path(home) / "home")
        (tmp_path / "keyring").write_text(key.armored)
        where = {"kernel_keyring": tmp_path / "keyring"}
        settings.NEXUS = settings.NEXUS.model_copy(update=where)
        signed = {name: key.clear_sign(kernel_org.checksums(), digest=name) for name in DIGESTS}
        key.close()
    kernel_org.mirror.add(SUMS, signed["SHA256"])
    found = check("6.18.2").result
    assert (found["buildable"], found["signer"]) == (True, key.fingerprint)
    kernel_org.mirror.add(SUMS, signed["SHA1"])
    assert check("6.18.2").error["code"] == "signature-invalid"


def test_without_gpgv_it_is_among_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signed_text, "GPGV", "gpgv-is-not-here")
    found = check("6.18.2").result
    assert (found["available"], found["buildable"]) == (True, False)
    assert "gpgv" in found["problems"][0]


def test_a_keyring_that_is_none_is_named(settings: Any, tmp_path: Any) -> None:
    (tmp_path / "junk").write_text("hello")
    settings.NEXUS = settings.NEXUS.model_copy(update={"kernel_keyring": tmp_path / "junk"})
    assert "junk cannot be used" in check("6.18.2").result["problems"][0]


def test_checksums_that_another_key_signed_are_refused(kernel_org: KernelOrgMirror) -> None:
    stranger = KernelOrgMirror(kernel_org.mirror, Key())
    stranger.publish("6.18.2", b"evil")
    operation = check("6.18.2")
    assert (operation.state, operation.error["code"]) == ("failed", "signature-invalid")


def test_what_stands_around_the_signed_text_counts_for_nothing(kernel_org: KernelOrgMirror) -> None:
    line = f"{'0' * 64}  linux-6.1.999.tar.xz\n".encode()
    signed = kernel_org.signed(kernel_org.checksums())
    kernel_org.mirror.add(SUMS, line + signed + line)
    assert check("6.1.999").result["buildable"] is False


def test_checksums_changed_after_signing_are_refused(kernel_org: KernelOrgMirror) -> None:
    signed = kernel_org.signed(kernel_org.checksums())
    kernel_org.mirror.add(SUMS, signed.replace(b"6.18.2", b"6.18.3"))
    assert check("6.18.3").error["code"] == "signature-invalid"


def test_checksums_without_a_signature_are_refused(kernel_org: KernelOrgMirror) -> None:
    kernel_org.mirror.add(SUMS, kernel_org.checksums().encode())
    assert check("6.18.2").error["code"] == "signature-invalid"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        (b"<html>", "no JSON"),
        (b"[" * 100_000, "no JSON"),
        (b"[]", "no list of releases"),
        (b'{"releases": 7}', "no list of releases"),
        (b'{"releases": [7, {"version": "x"}], "latest_stable": {"version": []}}', "latest stable"),
    ],
)
def test_an_odd_list_is_told(kernel_org: KernelOrgMirror, document: bytes, reason: str) -> None:
    kernel_org.mirror.add("/releases.json", document)
    operation = check()
    assert (operation.state, operation.error["code"]) == ("failed", "publisher-answer")
    assert reason in operation.error["text"]


def test_offline_is_told(settings: Any) -> None:
    update = {"kernel_releases_url": "http://127.0.0.1:9"}
    settings.NEXUS = settings.NEXUS.model_copy(update=update)
    operation = check()
    assert (operation.state, operation.error["kind"]) == ("failed", "Retryable")
    assert "127.0.0.1 cannot be reached" in operation.error["text"]
    assert "nexusctl kernel build --source TARBALL" in operation.error["hint"]


def test_missing_tools_are_among_the_problems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(toolchain, "PATH", "/nowhere")
    found = check("6.18.2").result
    assert (found["checksums_ready"], found["buildable"]) == (True, False)
    assert "apt-get install" in found["problems"][0]


@pytest.mark.parametrize("version", ["x", "6", "6.1.2.3", "6.1/..", "6.1 ", "-rc1"])
def test_what_is_no_version_is_refused(version: str) -> None:
    with pytest.raises(Invalid):
        services.check_kernel_version(version)

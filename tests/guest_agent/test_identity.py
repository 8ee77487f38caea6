"""A copied guest's own identity, with the real ssh-keygen of this machine in place of a guest's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

KEYS = ("ed25519", "ecdsa", "rsa")
MACHINE_ID = "0123456789abcdef0123456789abcdef\n"

ssh_keygen = pytest.mark.skipif(not shutil.which("ssh-keygen"), reason="there is no ssh-keygen")


@pytest.fixture
def guest(tmp_path: Path) -> Path:
    """A root file system that has been another guest's."""
    for directory in ("etc/ssh", "etc/nexus"):
        (tmp_path / directory).mkdir(parents=True)
    (tmp_path / "etc/machine-id").write_text(MACHINE_ID)
    (tmp_path / "etc/nexus/identity").write_text("aaaaaaaaaaaac\n")
    return tmp_path


def renew(agent: Path, guest: Path, identity: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [agent, "identity", "--id", identity, "--sandbox", guest], capture_output=True, text=True
    )


def fingerprints(guest: Path) -> list[str]:
    """Each key's, once it is certain that its two files belong together."""
    found = []
    for kind in KEYS:
        private = guest / f"etc/ssh/ssh_host_{kind}_key"
        assert private.stat().st_mode & 0o777 == 0o600
        public = keygen("-y", "-f", private)
        assert public.split()[:2] == private.with_suffix(".pub").read_text().split()[:2]
        found.append(keygen("-l", "-f", private).split()[1])
    return found


def keygen(*arguments: str | Path) -> str:
    return subprocess.run(
        ["ssh-keygen", *arguments], capture_output=True, text=True, check=True
    ).stdout


@ssh_keygen
def test_keys_and_machine_id_become_others(agent_binary: Path, guest: Path) -> None:
    for kind in KEYS:
        keygen("-q", "-t", kind, "-N", "", "-f", guest / f"etc/ssh/ssh_host_{kind}_key")
    before = fingerprints(guest)
    done = renew(agent_binary, guest, "aebagbafaydqq")
    assert (done.returncode, done.stderr) == (0, "")
    assert not set(before) & set(fingerprints(guest))
    assert (guest / "etc/machine-id").read_text() != MACHINE_ID
    assert (guest / "etc/nexus/identity").read_text() == "aebagbafaydqq\n"
    assert len(list((guest / "etc/ssh").iterdir())) == 2 * len(KEYS)


def test_what_fails_is_told_and_begun_anew(agent_binary: Path, guest: Path) -> None:
    (guest / "etc/machine-id").unlink()
    (guest / "etc/nexus/identity").unlink()
    (guest / "etc/nexus/identity").mkdir()
    done = renew(agent_binary, guest, "aebagbafaydqq")
    assert done.returncode == 2
    assert "nexus-agent: identity:" in done.stderr
    (guest / "etc/nexus/identity").rmdir()
    assert renew(agent_binary, guest, "aebagbafaydqq").returncode == 0


def test_a_word_that_is_no_identity_changes_nothing(agent_binary: Path, guest: Path) -> None:
    for identity in ("", "a b", "../etc"):
        assert renew(agent_binary, guest, identity).returncode == 2
    assert (guest / "etc/machine-id").read_text() == MACHINE_ID
    assert (guest / "etc/nexus/identity").read_text() == "aaaaaaaaaaaac\n"

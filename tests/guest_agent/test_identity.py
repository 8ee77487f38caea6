"""A copied guest's own identity, with the real ssh-keygen of this machine in place of a guest's."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration, Network

from .conftest import PATIENCE, AgentProcess, eventually

Connect = Callable[[], Awaitable[AgentConnection]]

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


# While it runs


async def test_becomes_another_guest_while_it_runs(agent: AgentProcess, connect: Connect) -> None:
    agent.write("etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    agent.write("etc/nexus/identity", "aaaaaaaaaaaac\n")
    agent.start()
    connection = await connect()
    boot_id = str(uuid.uuid4())
    wanted = Configuration(
        time=1.8e9,
        network=Network(mac="52:54:00:12:34:56"),
        identity="aebagbafaydqq",
        boot_id=boot_id,
    )
    before = time.time()
    answer = await connection.configure(wanted, PATIENCE)
    assert (answer.boot_id, answer.identity) == (boot_id, "new")
    assert answer.time is not None
    assert before <= answer.time <= time.time(), "by the clock, which a sandbox does not set"
    assert agent.calls() == [
        "time 1800000000000000000",
        "entropy 64",
        "interface eth0 52:54:00:12:34:56 10.0.2.15/24 via 10.0.2.2",
    ]
    assert agent.read("etc/nexus/identity") == "aebagbafaydqq\n"
    machine_id = agent.read("etc/machine-id")
    assert machine_id != "0123456789abcdef0123456789abcdef\n"
    again = await connection.configure(Configuration(identity="aebagbafaydqq"), PATIENCE)
    assert (again.boot_id, agent.read("etc/machine-id")) == (boot_id, machine_id)
    hello = (await connect()).hello
    assert (hello.boot_id, hello.identity) == (boot_id, "new")
    await eventually(lambda: agent.calls()[-1] == "sync")


async def test_keys_that_take_long_do_not_hold_it_up(
    agent: AgentProcess, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its ssh-keygen makes no RSA key until the test lets it."""
    keygen = tmp_path / "bin" / "ssh-keygen"
    keygen.parent.mkdir()
    keygen.write_text(
        "#!/bin/sh\n"
        f'[ "$3" = rsa ] && until [ -e {tmp_path}/go ]; do sleep .05; done\n'
        'for file; do :; done; echo "new $3" >$file; echo "new $3" >$file.pub\n'
    )
    keygen.chmod(0o755)
    monkeypatch.setenv("PATH", f"{keygen.parent}:{os.environ['PATH']}")
    for kind in ("ed25519", "rsa"):
        agent.write(f"etc/ssh/ssh_host_{kind}_key", "another guest's")
    agent.start()
    connection = await connect()
    await connection.configure(Configuration(identity="aebagbafaydqq"), PATIENCE)
    assert agent.read("etc/ssh/ssh_host_ed25519_key") == "new ed25519\n"
    assert not (agent.sandbox / "etc/ssh/ssh_host_rsa_key").exists()
    assert agent.read("etc/nexus/identity") == "aebagbafaydqq\n"
    assert agent.calls() == ["entropy 64", "reload sshd"]
    await connection.configure(Configuration(identity="aebagbafaydqq"), PATIENCE)
    (tmp_path / "go").touch()
    await eventually(lambda: agent.calls().count("reload sshd") == 2)
    assert agent.read("etc/ssh/ssh_host_rsa_key") == "new rsa\n"
    assert not list((agent.sandbox / "etc/ssh").glob("*nexus*"))

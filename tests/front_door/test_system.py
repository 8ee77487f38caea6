"""Packages of the distribution: the right manager, only when allowed, said before."""

from __future__ import annotations

import io
import os
from collections.abc import Callable

import pytest

from front_door import system
from front_door.steps import Step
from nexus_site.core.errors import Broken

OsRelease = Callable[[str], None]


@pytest.mark.parametrize(
    ("text", "command", "refresh", "install"),
    [
        (
            'PRETTY_NAME="Debian"\nID=debian\n',
            "apt-get",
            ["-o DPkg::Lock::Timeout=300 update"],
            "-o DPkg::Lock::Timeout=300 install -y --no-install-recommends "
            "qemu-system-x86 e2fsprogs",
        ),
        (
            "ID=linuxmint\nID_LIKE='ubuntu debian'\n".replace("'", '"'),
            "apt-get",
            ["-o DPkg::Lock::Timeout=300 update"],
            "-o DPkg::Lock::Timeout=300 install -y --no-install-recommends "
            "qemu-system-x86 e2fsprogs",
        ),
        ("ID=fedora\n", "dnf", [], "install -y qemu-system-x86-core e2fsprogs"),
        ("ID=alpine\n", "apk", [], "add qemu-system-x86_64 e2fsprogs e2fsprogs-extra"),
        ("ID=arch\n", "pacman", [], "-Sy --noconfirm --needed qemu-system-x86 e2fsprogs"),
        (
            'ID="opensuse-leap"\nID_LIKE="suse opensuse"\n',
            "zypper",
            [],
            "--non-interactive install qemu-x86 e2fsprogs",
        ),
    ],
)
def test_each_distribution(
    text: str,
    command: str,
    refresh: list[str],
    install: str,
    bin_dir,
    os_release: OsRelease,
    this: Step,
    said: io.StringIO,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    os_release(text)
    bin_dir.add(command)
    assert system.install(this, ["qemu", "e2fsprogs"])
    assert bin_dir.calls == [f"{command} {words}" for words in (*refresh, install)]
    assert f"with {command}" in said.getvalue()


def test_without_root_sudo_must_need_no_password(
    bin_dir, os_release: OsRelease, this: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    os_release("ID=debian\n")
    bin_dir.add("apt-get")
    assert not system.install(this, ["qemu"]), "no sudo at all"
    bin_dir.add("sudo", "exit 1")
    assert not system.install(this, ["qemu"]), "sudo asks for a password"
    assert bin_dir.calls == ["sudo -n true"]
    bin_dir.add("sudo", 'shift; exec "$@"')
    bin_dir.link("true")
    assert system.install(this, ["qemu"])
    assert bin_dir.calls[-1].endswith("install -y --no-install-recommends qemu-system-x86")


@pytest.mark.parametrize("text", ["ID=plan9\n", "ID=fedora\n", ""])
def test_a_system_we_do_not_know(
    text: str, bin_dir, os_release: OsRelease, this: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fedora without dnf is one too."""
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    os_release(text)
    assert not system.install(this, ["qemu"])
    assert system.command_for(["qemu"]) == "install qemu with your system's package manager"


def test_a_failing_manager_shows_its_words(
    bin_dir, os_release: OsRelease, this: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    os_release("ID=debian\n")
    bin_dir.add("apt-get", "echo E: no such package >&2; exit 100")
    with pytest.raises(Broken, match="exited with code 100") as caught:
        system.install(this, ["qemu"])
    assert caught.value.detail == "E: no such package"


@pytest.mark.parametrize(("uid", "sudo"), [(0, ""), (1000, "sudo ")])
def test_the_command_for_a_person(
    uid: int, sudo: str, bin_dir, os_release: OsRelease, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    os_release("ID=ubuntu\n")
    bin_dir.add("apt-get")
    command = f"{sudo}apt-get install -y --no-install-recommends qemu-system-x86 e2fsprogs"
    assert system.command_for(["qemu", "e2fsprogs"]) == command

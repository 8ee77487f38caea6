"""QEMU's command line: the flags that matter, checked as words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors.base import Disk, VmmSpec
from vms.hypervisors.qemu.binary import QemuBinary
from vms.hypervisors.qemu.command import MAX_DISKS, command_line, kernel_arguments

QEMU = QemuBinary(Path("/usr/bin/qemu"), "7.2.22", "microvm", "qboot.rom", sandbox=True)
PLAIN_QEMU = QemuBinary(
    Path("/opt/qemu"), "9.0.0", "q35", "", sandbox=False, options=("-L", "/opt/share")
)
ROOT = Disk("root", Path("/data/drives/root.raw"))
SPEC = VmmSpec(
    ref="aaaaaaaaaaaac",
    slot=1,
    vm_dir=Path("/data/vms/1"),
    name="hello",
    vcpu_count=2,
    mem_size_mib=512,
    kernel=Path("/data/kernels/vmlinux"),
    initrd=Path("/data/kernels/initrd"),
    disks=(ROOT,),
    mac="52:54:00:00:00:01",
    kernel_args=("nexus.init=none",),
)


def values(argv: list[str], option: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def words(argv: list[str]) -> list[str]:
    return values(argv, "-append")[0].split()


def test_the_machine() -> None:
    argv = command_line(SPEC, QEMU, "tcg", tsc_khz=2_400_000)
    assert argv[0] == "/usr/bin/qemu"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert values(argv, "-machine") == ["microvm"]
    assert values(argv, "-bios") == ["qboot.rom"]
    assert values(argv, "-smp") == ["2"]
    assert values(argv, "-m") == ["512M"]
    assert values(argv, "-display") == ["none"]
    assert values(argv, "-sandbox")[0].startswith("on,")
    assert values(argv, "-kernel") == ["/data/kernels/vmlinux"]
    assert values(argv, "-initrd") == ["/data/kernels/initrd"]


@pytest.mark.parametrize(
    ("accelerator", "vcpu_count", "word"),
    [("tcg", 1, "tcg"), ("tcg", 2, "tcg,thread=single"), ("kvm", 1, "kvm"), ("kvm", 2, "kvm")],
)
def test_several_emulated_cpus_take_turns(accelerator: str, vcpu_count: int, word: str) -> None:
    argv = command_line(replace(SPEC, vcpu_count=vcpu_count), QEMU, accelerator, tsc_khz=2_400_000)
    assert values(argv, "-accel") == [word]


def test_sockets_are_relative_so_that_no_path_is_too_long() -> None:
    argv = command_line(SPEC, QEMU, "tcg", None)
    assert values(argv, "-qmp") == ["unix:qmp.sock,server=on,wait=off"]
    assert "socket,id=agent,path=agent.sock,server=on,wait=off" in values(argv, "-chardev")


def test_devices() -> None:
    assert values(command_line(SPEC, QEMU, "tcg", None), "-device") == [
        "virtio-blk-device,drive=disk0,serial=root",
        "virtio-scsi-device,id=scsi",
        "virtio-serial-device",
        "virtserialport,chardev=agent,name=nexus.agent.0",
        "virtio-net-device,netdev=net,mac=52:54:00:00:00:01",
        "virtio-rng-device",
    ]


def test_emulation_needs_the_tsc_and_no_mitigations() -> None:
    emulated = words(command_line(SPEC, QEMU, "tcg", tsc_khz=2_400_000))
    assert {"tsc_early_khz=2400000", "tsc=reliable", "mitigations=off"} <= set(emulated)
    assert values(command_line(SPEC, QEMU, "tcg", None), "-cpu") == ["max"]


def test_kvm_keeps_mitigations_and_its_own_clock() -> None:
    argv = command_line(SPEC, QEMU, "kvm", tsc_khz=2_400_000)
    assert values(argv, "-accel") == ["kvm"]
    assert values(argv, "-cpu") == ["host"]
    assert not [word for word in words(argv) if word.startswith(("tsc", "mitigations"))]


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_flags_that_hang_guests_are_never_used(accelerator: str) -> None:
    text = " ".join(command_line(SPEC, QEMU, accelerator, None))
    assert "rtc=off" not in text
    assert "pit=off" not in text


def test_the_root_disk() -> None:
    assert {"root=/dev/vda", "rw", "rootflags=rw"} <= set(kernel_arguments(SPEC, "tcg", None))
    sealed = replace(SPEC, disks=(replace(ROOT, read_only=True),))
    arguments = kernel_arguments(sealed, "tcg", None)
    assert "ro" in arguments
    assert not {"rw", "rootflags=rw"} & set(arguments)
    assert "root=/dev/vda" not in kernel_arguments(replace(SPEC, disks=()), "tcg", None)


def test_the_specs_own_words_win() -> None:
    spec = replace(SPEC, kernel_args=("loglevel=8",))
    assert kernel_arguments(spec, "tcg", None)[-1] == "loglevel=8"


def test_a_disk_is_safe_and_may_have_any_path() -> None:
    odd = Disk("odd", Path('/data/a,b "c"/=.raw'), read_only=True)
    argv = command_line(replace(SPEC, disks=(ROOT, odd)), QEMU, "tcg", None)
    root, second = (json.loads(text) for text in values(argv, "-blockdev"))
    assert root["cache"] == {"direct": False, "no-flush": False}
    assert (root["driver"], root["discard"], root["detect-zeroes"]) == ("raw", "unmap", "unmap")
    assert (root["read-only"], second["read-only"]) == (False, True)
    assert second["file"]["filename"] == str(odd.path)


def test_too_many_disks() -> None:
    with pytest.raises(Invalid, match=f"at most {MAX_DISKS}"):
        command_line(replace(SPEC, disks=(ROOT,) * (MAX_DISKS + 1)), QEMU, "tcg", None)


def test_without_microvm_firmware_a_pci_machine_boots_the_bzimage() -> None:
    spec = replace(SPEC, bzimage=Path("/data/kernels/bzImage"))
    argv = command_line(spec, PLAIN_QEMU, "tcg", None)
    assert argv[:3] == ["/opt/qemu", "-L", "/opt/share"]
    assert values(argv, "-machine") == ["q35"]
    assert values(argv, "-kernel") == ["/data/kernels/bzImage"]
    assert values(argv, "-bios") == values(argv, "-sandbox") == []
    assert "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,romfile=" in values(argv, "-device")


def test_without_microvm_firmware_and_bzimage() -> None:
    with pytest.raises(Broken, match="no firmware") as caught:
        command_line(SPEC, PLAIN_QEMU, "tcg", None)
    assert caught.value.code == "qemu-firmware-missing"

"""QEMU's command line: the flags that matter, checked as words."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors.base import Disk, RateLimit, VmmSpec
from vms.hypervisors.qemu.binary import QemuBinary
from vms.hypervisors.qemu.command import MAX_DISKS, Memory, command_line, kernel_arguments
from vms.hypervisors.qemu.disks import ScsiAddress

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
MEMORY = Memory("/proc/1/fd/3", shared=True)
SAVED = Memory("/data/saved, really/memory", shared=False)


def words_of(
    spec: VmmSpec = SPEC,
    qemu: QemuBinary = QEMU,
    accelerator: str = "tcg",
    tsc_khz: int | None = None,
    memory: Memory = MEMORY,
    plugged: dict[str, ScsiAddress] | None = None,
) -> list[str]:
    return command_line(spec, qemu, accelerator, tsc_khz, memory, plugged)


def values(argv: list[str], option: str) -> list[str]:
    return [argv[at + 1] for at, word in enumerate(argv) if word == option]


def words(argv: list[str]) -> list[str]:
    return values(argv, "-append")[0].split()


def test_the_machine() -> None:
    argv = words_of(tsc_khz=2_400_000)
    assert argv[0] == "/usr/bin/qemu"
    assert {"-nodefaults", "-no-user-config", "-no-reboot"} <= set(argv)
    assert values(argv, "-machine") == ["microvm", "memory-backend=mem"]
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
    argv = words_of(replace(SPEC, vcpu_count=vcpu_count), accelerator=accelerator)
    assert values(argv, "-accel") == [word]


def test_sockets_are_relative_so_that_no_path_is_too_long() -> None:
    argv = words_of()
    assert values(argv, "-qmp") == ["unix:qmp.sock,server=on,wait=off"]
    assert "socket,id=agent,path=agent.sock,server=on,wait=off" in values(argv, "-chardev")


def test_devices() -> None:
    assert values(words_of(), "-device") == [
        "virtio-blk-device,drive=disk0,serial=root",
        "virtio-scsi-device,id=scsi",
        "virtio-serial-device,max_ports=2",
        "virtserialport,chardev=agent,name=nexus.agent.0",
        "virtio-net-device,netdev=net,mac=52:54:00:00:00:01",
        "virtio-rng-device",
    ]


def test_emulation_needs_the_tsc_no_mitigations_and_fixed_addresses() -> None:
    emulated = words(words_of(tsc_khz=2_400_000))
    wanted = {"tsc_early_khz=2400000", "tsc=reliable", "mitigations=off", "norandmaps"}
    wanted |= {"noreplace-smp", "kfence.sample_interval=0"}
    wanted |= {"nexus.emulated", "nexus.lapic_timer_khz=1000000"}
    assert wanted <= set(emulated)
    assert values(words_of(), "-cpu") == ["max,erms=off,fsrm=off"]


def test_kvm_keeps_mitigations_and_its_own_clock() -> None:
    argv = words_of(accelerator="kvm", tsc_khz=2_400_000)
    assert values(argv, "-accel") == ["kvm"]
    assert values(argv, "-cpu") == ["host"]
    emulation = ("tsc", "mitigations", "nexus.emulated", "nexus.lapic")
    assert not [word for word in words(argv) if word.startswith(emulation)]


@pytest.mark.parametrize("accelerator", ["kvm", "tcg"])
def test_flags_that_hang_guests_are_never_used(accelerator: str) -> None:
    text = " ".join(words_of(accelerator=accelerator))
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
    argv = words_of(replace(SPEC, disks=(ROOT, odd)))
    root, second = (json.loads(text) for text in values(argv, "-blockdev"))
    assert root["cache"] == {"direct": False, "no-flush": False}
    assert (root["driver"], root["discard"], root["detect-zeroes"]) == ("raw", "unmap", "unmap")
    assert (root["read-only"], second["read-only"]) == (False, True)
    assert second["file"]["filename"] == str(odd.path)


def test_too_many_disks() -> None:
    with pytest.raises(Invalid, match=f"at most {MAX_DISKS}"):
        words_of(replace(SPEC, disks=(ROOT,) * (MAX_DISKS + 1)))


def test_without_microvm_firmware_a_pci_machine_boots_the_bzimage() -> None:
    spec = replace(SPEC, bzimage=Path("/data/kernels/bzImage"))
    argv = words_of(spec, PLAIN_QEMU)
    assert argv[:3] == ["/opt/qemu", "-L", "/opt/share"]
    assert values(argv, "-machine")[0] == "q35"
    assert values(argv, "-kernel") == ["/data/kernels/bzImage"]
    assert values(argv, "-bios") == values(argv, "-sandbox") == []
    assert "virtio-net-pci,netdev=net,mac=52:54:00:00:00:01,romfile=" in values(argv, "-device")


def test_without_microvm_firmware_and_bzimage() -> None:
    with pytest.raises(Broken, match="no firmware") as caught:
        words_of(SPEC, PLAIN_QEMU)
    assert caught.value.code == "qemu-firmware-missing"


def memory_of(argv: list[str]) -> dict[str, object]:
    backend: dict[str, object] = json.loads(values(argv, "-object")[0])
    return backend


def test_memory_is_the_file_that_was_opened_for_it() -> None:
    assert memory_of(words_of()) == {
        "qom-type": "memory-backend-file",
        "id": "mem",
        "size": 512 * 2**20,
        "mem-path": "/proc/1/fd/3",
        "share": True,
    }


def test_a_saved_guest_gets_the_same_devices_and_no_kernel() -> None:
    argv = words_of(memory=SAVED, plugged={})
    assert values(argv, "-incoming") == ["defer"]
    assert values(argv, "-kernel") == values(argv, "-initrd") == values(argv, "-append") == []
    assert values(argv, "-device") == values(words_of(), "-device")
    assert (memory_of(argv)["mem-path"], memory_of(argv)["share"]) == (SAVED.path, False)


def test_a_plugged_disk_comes_back_where_it_was() -> None:
    spec = replace(SPEC, disks=(ROOT, Disk("data", Path("/data/drives/data.raw"))))
    argv = words_of(spec, memory=SAVED, plugged={"data": ScsiAddress(3, 0)})
    assert values(argv, "-device")[0] == "virtio-blk-device,drive=disk0,serial=root"
    assert json.loads(values(argv, "-device")[-1]) == {
        "driver": "scsi-hd",
        "bus": "scsi.0",
        "drive": "plug-data",
        "id": "plug-data",
        "serial": "data",
        "device_id": "data",
        "scsi-id": 3,
        "lun": 0,
    }
    assert json.loads(values(argv, "-blockdev")[1])["node-name"] == "plug-data"


def test_a_balloon_only_where_it_cannot_damage_saved_memory() -> None:
    """QEMU 9 opens the file read-only; 7.2 would punch holes into it for a guest."""
    new_qemu = replace(QEMU, version="9.0.1")
    assert "virtio-balloon-device,id=balloon" in values(words_of(qemu=new_qemu), "-device")
    saved = memory_of(words_of(qemu=new_qemu, memory=SAVED, plugged={}))
    assert (saved["readonly"], saved["rom"]) == (True, "off")
    assert "readonly" not in memory_of(words_of(qemu=new_qemu))
    assert not [word for word in words_of() if "balloon" in word]


@pytest.mark.parametrize(
    ("version", "balloon"), [("7.2.22", False), ("8.1.5", False), ("8.2.0", True), ("10.1", True)]
)
def test_versions_with_a_balloon(version: str, balloon: bool) -> None:
    assert replace(QEMU, version=version).balloon is balloon


def test_a_limited_disk() -> None:
    limit = RateLimit(bytes_per_second=10 * 2**20, operations_per_second=100)
    argv = words_of(replace(SPEC, disks=(replace(ROOT, limit=limit), Disk("free", Path("/free")))))
    assert json.loads(values(argv, "-object")[1]) == {
        "qom-type": "throttle-group",
        "id": "limit-disk0",
        "limits": {"bps-total": 10 * 2**20, "iops-total": 100},
    }
    limited, free = (json.loads(text) for text in values(argv, "-blockdev"))
    assert (limited["driver"], limited["node-name"]) == ("throttle", "disk0")
    assert limited["throttle-group"] == "limit-disk0"
    assert limited["file"]["driver"] == free["driver"] == "raw"


def test_half_a_limit() -> None:
    argv = words_of(replace(SPEC, disks=(replace(ROOT, limit=RateLimit(2**20)),)))
    assert json.loads(values(argv, "-object")[1])["limits"] == {"bps-total": 2**20}


def test_a_network_with_a_limit_is_refused() -> None:
    with pytest.raises(Invalid, match="no limits") as caught:
        words_of(replace(SPEC, network_limit=RateLimit(2**20)))
    assert caught.value.code == "limit-unsupported"
    assert "Firecracker" in caught.value.hint

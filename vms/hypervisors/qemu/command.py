"""The QEMU command line of a VM. Pure: a spec in, words out.

Every flag here was measured or cost somebody hours:

- never `rtc=off` (the kernel polls the missing clock for seconds) and never `pit=off`
  (without KVM the timer is calibrated with it: such a guest hangs);
- `tsc_early_khz` in emulation: microvm has no HPET, so on a busy host the kernel misjudges
  the TSC and hangs; the guest's TSC there is the host's;
- `reboot=t`: under `-no-reboot` a triple fault is a clean exit, without waiting for a
  keyboard controller that is not there;
- `erms=off,fsrm=off` in emulation: there a copy by bytes, which these CPUs call fast, takes
  eight times as many steps as one by words;
- `max_ports=2`: the agent's port and the one that QEMU keeps for a console; for the usual 31 the
  guest makes 64 queues at its start;
- `thread=single` for several CPUs in emulation: with a thread for each, one CPU may run kernel
  code that another is just patching; on a busy host two such boots of some forty panicked;
- no kernel beside `-incoming`: a restored guest has its own in its memory, and each QEMU would
  hold these 20 MB once more.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors.base import Disk, RateLimit, VmmSpec
from vms.hypervisors.kernel_arguments import CONSOLE, root_arguments
from vms.hypervisors.qemu.binary import QemuBinary
from vms.hypervisors.qemu.disks import (
    SCSI,
    ScsiAddress,
    block_node,
    plugged_name,
    scsi_device,
    throttle_group,
)
from vms.hypervisors.qemu.install import install_command

AGENT_PORT = "nexus.agent.0"
AGENT_SOCKET = "agent.sock"
QMP_SOCKET = "qmp.sock"
MEMORY = "mem"
BALLOON = "balloon"
MAX_DISKS = 16
# The timers of QEMU's local APICs count nanoseconds; see builds/kernels/additions.
LAPIC_TIMER_KHZ = 1_000_000
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


@dataclass(frozen=True)
class Memory:
    """The file that is the guest's memory, or that of which it gets a copy on write."""

    path: str
    shared: bool


def command_line(
    spec: VmmSpec,
    qemu: QemuBinary,
    accelerator: str,
    tsc_khz: int | None,
    memory: Memory,
    plugged: Mapping[str, ScsiAddress] | None = None,
) -> list[str]:
    """The words that start `spec`; socket names are relative to the VM's directory.

    With `plugged` they make the same machine for a saved guest, and QEMU waits to be given its
    state; it names those of the spec's disks that came while the guest ran.
    """
    _require_possible(spec)
    restored, plugged = plugged is not None, plugged or {}
    bus = _bus(qemu)
    return [
        *machine(qemu, accelerator, spec.vcpu_count, spec.mem_size_mib),
        *("-object", json.dumps(_memory_object(spec, qemu, memory))),
        *("-machine", f"memory-backend={MEMORY}"),
        *("-name", f"guest={spec.name}"),
        *(("-incoming", "defer") if restored else _kernel(spec, qemu, accelerator, tsc_khz)),
        *("-qmp", f"unix:{QMP_SOCKET},server=on,wait=off"),
        *_disks([disk for disk in spec.disks if disk.name not in plugged], bus),
        *("-device", f"virtio-scsi-{bus},id={SCSI}"),
        *("-device", f"virtio-serial-{bus},max_ports=2"),
        *("-chardev", f"socket,id=agent,path={AGENT_SOCKET},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *("-netdev", "user,id=net"),
        *("-device", f"virtio-net-{bus},netdev=net,mac={spec.mac}" + _no_rom(bus)),
        *("-device", f"virtio-rng-{bus}"),
        *(("-device", f"virtio-balloon-{bus},id={BALLOON}") if qemu.balloon else ()),
        *_plugged(spec.disks, plugged),
    ]


def _require_possible(spec: VmmSpec) -> None:
    if len(spec.disks) > MAX_DISKS:
        raise Invalid(f"A VM can have at most {MAX_DISKS} disks.", code="too-many-disks")
    if spec.network_limit != RateLimit():
        raise Invalid(
            "QEMU's network knows no limits, and this VM's network has one.",
            hint="Run the VM on Firecracker, or take the limit away.",
            code="limit-unsupported",
        )


def _memory_object(spec: VmmSpec, qemu: QemuBinary, memory: Memory) -> dict[str, object]:
    backend: dict[str, object] = {
        "qom-type": "memory-backend-file",
        "id": MEMORY,
        "size": spec.mem_size_mib * 2**20,
        "mem-path": memory.path,
        "share": memory.shared,
    }
    if qemu.balloon and not memory.shared:
        backend |= {"readonly": True, "rom": "off"}
    return backend


def _kernel(
    spec: VmmSpec, qemu: QemuBinary, accelerator: str, tsc_khz: int | None
) -> tuple[str, ...]:
    return (
        *("-kernel", str(kernel_file(qemu, spec.kernel, spec.bzimage))),
        *(("-initrd", str(spec.initrd)) if spec.initrd else ()),
        *("-append", " ".join(kernel_arguments(spec, accelerator, tsc_khz))),
    )


def machine(qemu: QemuBinary, accelerator: str, vcpu_count: int, mem_size_mib: int) -> list[str]:
    """The bare machine with its console on stdout; a reset ends it."""
    return [
        str(qemu.path),
        *qemu.options,
        *("-nodefaults", "-no-user-config", "-no-reboot"),
        *("-display", "none"),
        *(("-sandbox", SANDBOX) if qemu.sandbox else ()),
        *("-machine", qemu.machine),
        *(("-bios", qemu.firmware) if qemu.firmware else ()),
        *("-accel", _accelerator(accelerator, vcpu_count)),
        *("-cpu", "host" if accelerator == "kvm" else "max,erms=off,fsrm=off"),
        *("-smp", str(vcpu_count)),
        *("-m", f"{mem_size_mib}M"),
        *("-chardev", "stdio,id=console,signal=off"),
        *("-serial", "chardev:console"),
    ]


def _accelerator(accelerator: str, vcpu_count: int) -> str:
    several = accelerator == "tcg" and vcpu_count > 1
    return "tcg,thread=single" if several else accelerator


def kernel_file(qemu: QemuBinary, vmlinux: Path, bzimage: Path | None) -> Path:
    """The file this QEMU can start: without firmware that knows PVH it must be the bzImage."""
    if qemu.machine == "microvm":
        return vmlinux
    if bzimage is None:
        raise Broken(
            "This QEMU has no firmware for microVMs, and the kernel has no bzImage to do without.",
            hint=install_command(),
            code="qemu-firmware-missing",
        )
    return bzimage


def kernel_arguments(spec: VmmSpec, accelerator: str, tsc_khz: int | None) -> list[str]:
    """The guest kernel's command line; the spec's own words come last and so win."""
    machine = machine_arguments(accelerator, tsc_khz)
    return [*machine, *root_arguments(spec.disks), *spec.kernel_args]


def machine_arguments(accelerator: str, tsc_khz: int | None) -> list[str]:
    """The kernel's words that only depend on the machine."""
    words = [*CONSOLE, "reboot=t"]
    if accelerator == "tcg":
        # Mitigations guard against hardware that an emulated CPU does not have. At random
        # addresses a program would be translated anew each time that it is started. To take the
        # locks out of the kernel's code, for a single CPU, costs more than they do. KFENCE, where
        # a kernel has it, changes that code ten times a second. What begins with "nexus." is for
        # kernels that Nexus builds.
        words += ["mitigations=off", "tsc=reliable", "no_timer_check", "norandmaps"]
        words += ["noreplace-smp", "nexus.emulated", f"nexus.lapic_timer_khz={LAPIC_TIMER_KHZ}"]
        words += ["kfence.sample_interval=0"]
        words += [f"tsc_early_khz={tsc_khz}"] if tsc_khz else []
    return words


def _disks(disks: list[Disk], bus: str) -> list[str]:
    """As JSON, since a path may hold any character."""
    words = []
    for index, disk in enumerate(disks):
        words += _blocks(disk, f"disk{index}")
        words += ["-device", f"virtio-blk-{bus},drive=disk{index},serial={disk.name}"]
    return words


def _plugged(disks: tuple[Disk, ...], addresses: Mapping[str, ScsiAddress]) -> list[str]:
    words = []
    for disk in disks:
        if disk.name in addresses:
            words += _blocks(disk, plugged_name(disk.name))
            words += ["-device", json.dumps(scsi_device(disk.name, addresses[disk.name]))]
    return words


def _blocks(disk: Disk, name: str) -> list[str]:
    group = throttle_group(disk, name)
    objects = ["-object", json.dumps(group)] if group else []
    return [*objects, "-blockdev", json.dumps(block_node(disk, name))]


def _bus(qemu: QemuBinary) -> str:
    """The suffix of virtio devices: memory-mapped on microvm, PCI elsewhere."""
    return "device" if qemu.machine == "microvm" else "pci"


def _no_rom(bus: str) -> str:
    """PCI network cards look for a boot ROM that is no use here and may not be installed."""
    return ",romfile=" if bus == "pci" else ""

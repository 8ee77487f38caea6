"""The QEMU command line of a VM. Pure: a spec in, words out.

Every flag here was measured or cost somebody hours:

- never `rtc=off` (the kernel polls the missing clock for seconds) and never `pit=off`
  (without KVM the timer is calibrated with it: such a guest hangs);
- `tsc_early_khz` in emulation: microvm has no HPET, so on a busy host the kernel misjudges
  the TSC and hangs; the guest's TSC there is the host's;
- `rootflags=rw` beside `rw`: Alpine's init mounts the root by its flags;
- `reboot=t`: under `-no-reboot` a triple fault is a clean exit, without waiting for a
  keyboard controller that is not there;
- `thread=single` for several CPUs in emulation: with a thread for each, one CPU may run kernel
  code that another is just patching; on a busy host two such boots of some forty panicked;
- `loglevel=6`: errors, panics and what a person wants to see; the rest of the kernel's 220
  lines would cost emulation 5 % of the start.
"""

from __future__ import annotations

import json
from pathlib import Path

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors.base import Disk, VmmSpec
from vms.hypervisors.qemu.binary import QemuBinary
from vms.hypervisors.qemu.install import install_command

AGENT_PORT = "nexus.agent.0"
AGENT_SOCKET = "agent.sock"
QMP_SOCKET = "qmp.sock"
SCSI = "scsi"  # the controller that takes disks while the VM runs
MAX_DISKS = 16
SANDBOX = "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"


def command_line(
    spec: VmmSpec, qemu: QemuBinary, accelerator: str, tsc_khz: int | None
) -> list[str]:
    """The words that start `spec`; socket names are relative to the VM's directory."""
    if len(spec.disks) > MAX_DISKS:
        raise Invalid(f"A VM can have at most {MAX_DISKS} disks.", code="too-many-disks")
    bus = _bus(qemu)
    return [
        *machine(qemu, accelerator, spec.vcpu_count, spec.mem_size_mib),
        *("-name", f"guest={spec.name}"),
        *("-kernel", str(kernel_file(qemu, spec.kernel, spec.bzimage))),
        *(("-initrd", str(spec.initrd)) if spec.initrd else ()),
        *("-append", " ".join(kernel_arguments(spec, accelerator, tsc_khz))),
        *("-qmp", f"unix:{QMP_SOCKET},server=on,wait=off"),
        *_disks(spec.disks, bus),
        *("-device", f"virtio-scsi-{bus},id={SCSI}"),
        *("-device", f"virtio-serial-{bus}"),
        *("-chardev", f"socket,id=agent,path={AGENT_SOCKET},server=on,wait=off"),
        *("-device", f"virtserialport,chardev=agent,name={AGENT_PORT}"),
        *("-netdev", "user,id=net"),
        *("-device", f"virtio-net-{bus},netdev=net,mac={spec.mac}" + _no_rom(bus)),
        *("-device", f"virtio-rng-{bus}"),
    ]


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
        *("-cpu", "host" if accelerator == "kvm" else "max"),
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
    words = machine_arguments(accelerator, tsc_khz)
    if spec.disks:
        words += ["root=/dev/vda", "rootfstype=ext4"]
        words += ["ro"] if spec.disks[0].read_only else ["rw", "rootflags=rw"]
    return [*words, *spec.kernel_args]


def machine_arguments(accelerator: str, tsc_khz: int | None) -> list[str]:
    """The kernel's words that only depend on the machine."""
    words = ["console=ttyS0", "loglevel=6", "panic=-1", "reboot=t"]
    if accelerator == "tcg":
        # Mitigations guard against hardware that an emulated CPU does not have.
        words += ["mitigations=off", "tsc=reliable", "no_timer_check"]
        words += [f"tsc_early_khz={tsc_khz}"] if tsc_khz else []
    return words


def _disks(disks: tuple[Disk, ...], bus: str) -> list[str]:
    """As JSON, since a path may hold any character. The host's page cache is used and the
    guest's flushes are honoured; freed and zeroed blocks go back to the host."""
    words = []
    for index, disk in enumerate(disks):
        words += ["-blockdev", json.dumps(block_node(disk, f"disk{index}"))]
        words += ["-device", f"virtio-blk-{bus},drive=disk{index},serial={disk.name}"]
    return words


def block_node(disk: Disk, name: str) -> dict[str, object]:
    """QEMU's block device for a disk, on the command line and over QMP alike."""
    file = {"driver": "file", "filename": str(disk.path), "aio": "threads"}
    node = {"driver": "raw", "node-name": name, "detect-zeroes": "unmap"}
    common = {
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": False},
    }
    return node | common | {"file": file | common}


def _bus(qemu: QemuBinary) -> str:
    """The suffix of virtio devices: memory-mapped on microvm, PCI elsewhere."""
    return "device" if qemu.machine == "microvm" else "pci"


def _no_rom(bus: str) -> str:
    """PCI network cards look for a boot ROM that is no use here and may not be installed."""
    return ",romfile=" if bus == "pci" else ""

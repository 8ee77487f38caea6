"""Does KVM work here? Only a guest that ran tells: some hosts have a /dev/kvm that hangs guests.

The trial starts the kernel with an /init of 190 bytes that prints a word and resets the
machine, so a good answer means that kernel and user space both ran.
"""

from __future__ import annotations

import grp
import json
import os
import platform
import struct
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from images.initrd import build_initrd
from vms.hypervisors.base import Problem
from vms.hypervisors.monitor import read_json, write_json
from vms.hypervisors.qemu.binary import QemuBinary
from vms.hypervisors.qemu.command import machine, machine_arguments

KVM = Path("/dev/kvm")
TRIAL_SECONDS = 10
TRIAL_WORD = b"a guest ran\n"
RECORD = "kvm.json"


def kvm_problem(qemu: QemuBinary, kernel: Path | None, cache_dir: Path) -> Problem | None:
    """Why VMs cannot use KVM on this host, or None when they can.

    The trial's answer is kept in `cache_dir` and holds for this host kernel, QEMU and
    /dev/kvm; with no `kernel` to try, and no answer kept, KVM counts as not usable.
    """
    if problem := _no_access():
        return problem
    record, key = cache_dir / RECORD, _key(qemu)
    with suppress(OSError, json.JSONDecodeError, KeyError):
        kept = read_json(str(record))
        if kept["key"] == key:
            return _unusable(kept["failure"])
    if kernel is None:
        return Problem("KVM has not been tried: there is no kernel yet.", "Start a first VM.")
    failure = try_guest(qemu, kernel)
    cache_dir.mkdir(parents=True, exist_ok=True)
    write_json(str(record), {"key": key, "failure": failure})
    return _unusable(failure)


def try_guest(
    qemu: QemuBinary, kernel: Path, accelerator: str = "kvm", tsc_khz: int | None = None
) -> str:
    """Run the tiny guest. Empty when it ran, else what went wrong, for people."""
    with tempfile.TemporaryDirectory(prefix="nexus-kvm-") as directory:
        initrd = Path(directory, "initrd")
        program = Path(directory, "init")
        program.write_bytes(trial_program())
        build_initrd(initrd, program, [])
        command = [
            *machine(qemu, accelerator, vcpu_count=1, mem_size_mib=128),
            *("-kernel", str(kernel), "-initrd", str(initrd)),
            *("-append", " ".join(machine_arguments(accelerator, tsc_khz))),
        ]
        try:
            ended = subprocess.run(
                command,
                env=qemu.environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=TRIAL_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return f"a guest hung for {TRIAL_SECONDS} s"
    if TRIAL_WORD.strip() in ended.stdout:
        return ""
    lines = ended.stderr.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else "a guest ended before it ran"


def trial_program() -> bytes:
    """A static x86-64 ELF program: write(1, TRIAL_WORD), then reboot(RESTART)."""
    base, headers = 0x400000, 64 + 56
    code = b"".join(
        (
            b"\xb8" + struct.pack("<I", 1),  # mov eax, SYS_write
            b"\xbf" + struct.pack("<I", 1),  # mov edi, stdout
            b"\xbe" + struct.pack("<I", base + headers + 49),  # mov esi, the word after the code
            b"\xba" + struct.pack("<I", len(TRIAL_WORD)),  # mov edx, its length
            b"\x0f\x05",  # syscall
            b"\xb8" + struct.pack("<I", 169),  # mov eax, SYS_reboot
            b"\xbf" + struct.pack("<I", 0xFEE1DEAD),  # mov edi, magic
            b"\xbe" + struct.pack("<I", 672274793),  # mov esi, magic2
            b"\xba" + struct.pack("<I", 0x01234567),  # mov edx, LINUX_REBOOT_CMD_RESTART
            b"\x0f\x05",  # syscall
            b"\xeb\xfe\x90\x90\x90",  # stay here if that failed
        )
    )
    size = headers + len(code) + len(TRIAL_WORD)
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf = struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, base + headers, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 1, 5, 0, base, base, size, size, 0x1000)
    return ident + elf + segment + code + TRIAL_WORD


def _no_access() -> Problem | None:
    if not KVM.exists():
        return Problem(
            "There is no /dev/kvm, so VMs run in emulation, several times slower.",
            "Turn on virtualization in the machine's firmware (on a cloud machine: nested "
            "virtualization), then load the module.",
            "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
        )
    if not os.access(KVM, os.R_OK | os.W_OK):
        return Problem(
            "Nexus may not open /dev/kvm, so VMs run in emulation, several times slower.",
            "Join the group that may, sign in again, and restart Nexus.",
            f"sudo usermod -aG {_kvm_group()} $USER",
        )
    return None


def _kvm_group() -> str:
    try:
        return grp.getgrgid(KVM.stat().st_gid).gr_name
    except KeyError:  # usual in a container
        return "kvm"


def _unusable(failure: str) -> Problem | None:
    if not failure:
        return None
    return Problem(
        f"KVM is there but no guest runs with it ({failure}), so VMs run in emulation.",
        "Update the host's kernel, or use a machine whose KVM runs unmodified guests.",
    )


def _key(qemu: QemuBinary) -> list[str | int]:
    device = KVM.stat()
    return [platform.release(), qemu.version, str(qemu.path), device.st_ino, device.st_rdev]

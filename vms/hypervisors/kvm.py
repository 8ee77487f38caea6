"""Does KVM work here? Only a guest that ran tells: some hosts have a /dev/kvm that hangs guests.

What all drivers' trials have in common. A trial starts a kernel with an /init of 190 bytes that
prints a word and resets the machine, so a good answer means that kernel and user space both ran.
"""

from __future__ import annotations

import grp
import json
import os
import platform
import struct
import subprocess
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from images.initrd import build_initrd
from vms.hypervisors.base import Problem
from vms.hypervisors.monitor import boot_id
from vms.hypervisors.records import read_json, write_json

KVM = Path("/dev/kvm")
TRIAL_WORD = b"a guest ran\n"
TRIAL_MIB = 128


def access_problem(device: Path, consequence: str) -> Problem | None:
    """Why nobody, or not we, may open the device; `consequence` ends its sentence."""
    if not device.exists():
        return Problem(
            f"There is no /dev/kvm, so {consequence}.",
            "Turn on virtualization in the machine's firmware (on a cloud machine: nested "
            "virtualization), then load the module.",
            "sudo modprobe kvm_intel || sudo modprobe kvm_amd",
        )
    if not os.access(device, os.R_OK | os.W_OK):
        return Problem(
            f"Nexus may not open /dev/kvm, so {consequence}.",
            "Join the group that may, sign in again, and restart Nexus.",
            f"sudo usermod -aG {_group(device)} $USER",
        )
    return None


def unusable(failure: str, consequence: str) -> Problem:
    """The problem of a host whose trial failed."""
    return Problem(
        f"KVM is there but no guest runs with it ({failure}), so {consequence}.",
        "Update the host's kernel, or use a machine whose KVM runs unmodified guests.",
    )


def answer(
    record: Path, device: Path, vmm: list[str], trial: Callable[[], str] | None
) -> str | None:
    """What the trial says: empty when guests run, else what went wrong, for people.

    Kept in `record`, the answer holds for this host kernel, device and `vmm`; a failure only
    until the host boots anew, perhaps with other settings in its firmware. None when there is no
    answer yet, and no `trial` either.
    """
    stat = device.stat()
    key = [platform.release(), stat.st_ino, stat.st_rdev, *vmm]
    with suppress(OSError, json.JSONDecodeError, KeyError):
        kept = read_json(record)
        if kept["key"] == key and (not kept["failure"] or kept["boot_id"] == boot_id()):
            return str(kept["failure"])
    if trial is None:
        return None
    failure = trial()
    record.parent.mkdir(parents=True, exist_ok=True)
    write_json(record, {"key": key, "failure": failure, "boot_id": boot_id()})
    return failure


def trial_initrd(directory: Path) -> Path:
    """The trial's initrd, made in `directory`."""
    initrd, program = directory / "initrd", directory / "init"
    program.write_bytes(trial_program())
    build_initrd(initrd, program, [])
    return initrd


def run_trial(command: list[str], env: Mapping[str, str], seconds: float) -> str:
    """Run a VMM with the trial's guest: empty when that ran, else what went wrong, for people."""
    try:
        ended = subprocess.run(
            command,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return f"a guest hung for {seconds:g} s"
    except OSError as error:
        return str(error)
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


def _group(device: Path) -> str:
    try:
        return grp.getgrgid(device.stat().st_gid).gr_name
    except KeyError:  # usual in a container
        return "kvm"

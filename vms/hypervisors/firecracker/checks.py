"""What can be known to fail before anything is started."""

from __future__ import annotations

import os
import platform
import stat
import struct
from pathlib import Path

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker.binary import FirecrackerBinary

OLDEST = (1, 7)
ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
MACHINES = {62: "x86_64", 183: "aarch64", 243: "riscv64"}


def check_version(binary: FirecrackerBinary) -> None:
    """Raise Broken for a Firecracker that lacks what every VM needs."""
    if binary.release < OLDEST:
        wanted = ".".join(map(str, OLDEST))
        raise Broken(
            f"Firecracker {binary.version} is too old: Nexus needs {wanted} or newer.",
            hint="Download a newer one: nexusctl firecracker download",
            code="firecracker-too-old",
        )


def check_files(spec: VmmSpec) -> None:
    """Raise Invalid unless the kernel, the initrd and the disks are there and fit."""
    check_kernel(spec.kernel)
    if spec.initrd is not None:
        _check_file("initrd", spec.initrd)
    check_disks(spec)


def check_disks(spec: VmmSpec) -> None:
    """Raise Invalid unless all disks are there and may be used."""
    for disk in spec.disks:
        _check_file(f"disk {disk.name}", disk.path, writable=not disk.read_only)


def check_kernel(kernel: Path, arch: str | None = None) -> None:
    """Raise Invalid unless this is an ELF kernel for `arch`, or else for this host."""
    _check_file("kernel", kernel)
    with kernel.open("rb") as file:
        head = file.read(20)
    if len(head) < 20 or not head.startswith(ELF64_LITTLE_ENDIAN):
        raise Invalid(
            "The kernel is not a 64-bit ELF file, which is what Firecracker starts.",
            detail=str(kernel),
            hint="Use an uncompressed vmlinux.",
            code="kernel-not-elf",
        )
    (number,) = struct.unpack_from("<H", head, 18)
    built_for, arch = MACHINES.get(number, f"machine {number}"), arch or platform.machine()
    if built_for != arch:
        raise Invalid(
            f"The kernel is for {built_for}, and this host is {arch}.",
            detail=str(kernel),
            hint="Firecracker does not emulate: use a kernel and an image for this host.",
            code="wrong-architecture",
        )


def _check_file(what: str, path: Path, *, writable: bool = False) -> None:
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise Invalid(
            f"The VM's {what} is not there.", detail=str(error), code="file-missing"
        ) from None
    if not stat.S_ISREG(mode) and not stat.S_ISBLK(mode):
        raise Invalid(f"The VM's {what} is not a file.", detail=str(path), code="file-missing")
    if not os.access(path, os.R_OK | (os.W_OK if writable else 0)):
        verb = "write" if writable else "read"
        raise Invalid(
            f"Nexus may not {verb} the VM's {what}.", detail=str(path), code="file-denied"
        )

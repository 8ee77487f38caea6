"""Boots a kernel once, to see whether and how soon it comes to the agent's hello.

The VM is nobody's: no row, an empty root file system, the agent its only program. Its VMM is
started and ended as any other's; see ``vms.hypervisors``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from django.conf import settings

from images import services as image_services
from images.formats.e2fsprogs import run_tool
from images.kernel_boots import BootTry, KernelFiles
from nexus_site.core.errors import Broken, Invalid, NexusError
from nexus_site.core.ids import NexusID
from vms.build_machine import MAC, BuildMachine
from vms.choice import label, probe
from vms.console import PANIC
from vms.drivers import NAMES, driver_for
from vms.hypervisors import monitored
from vms.hypervisors.base import Disk, Handle, Hypervisor, VmmSpec
from vms.paths import CONSOLE

MEMORY_MIB = 256
MOUNT_POINTS = ("dev", "proc", "run", "sys", "tmp")
#: All that the kernel says; to find the line where it stops, time does not matter.
CHATTY = ("ignore_loglevel",)
AGENT = "nexus-agent:"
NO_SLOT = 0  # those of VMs begin with 1


class KernelBoots:
    """Provides ``images.kernel_boots`` with this host's VMMs."""

    def usable(self) -> Sequence[str]:
        """The VMMs that work here; see ``images.kernel_boots.KernelBooter``."""
        with suppress(NexusError):  # what KVM is tried with
            image_services.ensure_default_kernel()
        return [name for name in NAMES if probe(name).usable]

    def boot(
        self, vmm: str, files: KernelFiles, directory: Path, check: Callable[[], None]
    ) -> BootTry:
        """One boot, and another where it fails: to have the kernel say more."""
        try:
            return BootTry(vmm, _boot(driver_for(vmm), files, directory, check))
        except (Broken, Invalid) as error:
            if error.code != "build-vm-lost":  # the VMM itself refuses it
                return BootTry(vmm, None, error.text, error.detail)
        again = directory.with_name(f"{vmm}-again")
        with suppress(Broken):
            _boot(driver_for(vmm), files, again, check, CHATTY)
        return _failed(vmm, monitored.last_words(again / CONSOLE))

    def discard(self, directory: Path) -> None:
        """End what runs in ``directory``; see ``images.kernel_boots.KernelBooter``."""
        driver = driver_for(directory.name.partition("-")[0])
        found = driver.adopt(directory)
        if isinstance(found, Handle):
            driver.kill(found)
        if found is not None:
            driver.cleanup(directory)


def _boot(
    driver: Hypervisor,
    files: KernelFiles,
    directory: Path,
    check: Callable[[], None],
    more_arguments: Sequence[str] = (),
) -> float:
    """Seconds from the start of the VMM to the agent's hello."""
    directory.mkdir(mode=0o700, parents=True)
    spec = _spec(files, directory, more_arguments)
    handle = driver.launch(spec)  # the first one may try KVM before, which takes its time
    try:
        with asyncio.Runner() as runner:
            machine = BuildMachine(driver, handle, runner, check)
            try:
                machine.greet()
                return round(_age(handle), 3)
            finally:
                machine.hang_up()
    finally:
        driver.kill(handle)
        driver.cleanup(directory)


def _age(handle: Handle) -> float:
    """Seconds for which the VMM has run; its start is in clock ticks since the host's boot."""
    return time.clock_gettime(time.CLOCK_BOOTTIME) - handle.started / os.sysconf("SC_CLK_TCK")


def _spec(files: KernelFiles, directory: Path, more_arguments: Sequence[str]) -> VmmSpec:
    root = directory / "root.ext4"
    for name in MOUNT_POINTS:
        (directory / "root" / name).mkdir(parents=True)
    run_tool("mke2fs", ["-q", "-t", "ext4", "-d", directory / "root", root, "32M"])
    return VmmSpec(
        vm_dir=directory,
        ref=str(NexusID.random()),
        slot=NO_SLOT,
        name="nexus-kernel",
        vcpu_count=1,
        mem_size_mib=MEMORY_MIB,
        kernel=files.vmlinux,
        bzimage=files.bzimage,
        initrd=files.initrd,
        disks=(Disk("root", root),),
        mac=MAC,
        kernel_args=(
            "nexus.init=none",
            *more_arguments,
            *settings.NEXUS.guest_kernel_args.split(),
        ),
    )


def _failed(vmm: str, console: str) -> BootTry:
    lines = [line.strip() for line in console.splitlines() if line.strip()]
    # After a panic comes a trace, after the agent's last words the end of the machine.
    told = [line for line in lines if PANIC in line or AGENT in line]
    last = (told or lines or [""])[-1]
    where = f"its console stopped at “{last}”" if last else "its console stayed silent"
    return BootTry(vmm, None, f"{label(vmm)}'s guest sent no hello; {where}", console)

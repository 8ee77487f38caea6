"""What this host is good for: Firecracker on its own KVM, the rig, or neither."""

from __future__ import annotations

import functools
import os
import platform
import tempfile
from pathlib import Path

from images.providers.apt_sources import system_sources
from images.providers.debian_archive import archive_of
from images.providers.embedded import EmbeddedProvider
from nexus_site.core.errors import NexusError
from tests.rig import build
from tests.rig.cache import Cache, default_directory, digest
from vms.hypervisors.qemu import kvm
from vms.hypervisors.qemu.binary import find_qemu
from vms.hypervisors.qemu.command import kernel_file

IN_LEVEL1 = "NEXUS_TEST_RIG"
#: Where Firecracker and its jailer are in level 1.
PROGRAMS = Path("/opt/firecracker")


def is_level1() -> bool:
    """Whether this process runs in the rig."""
    return IN_LEVEL1 in os.environ


@functools.cache
def kvm_problem() -> str:
    """Why guests cannot use this host's KVM; empty where one has really run."""
    if not kvm.KVM.exists():
        return "there is no /dev/kvm"
    provider = EmbeddedProvider()
    (offer,) = (o for o in provider.list_kernels() if o.arch == platform.machine())
    with tempfile.TemporaryDirectory(prefix="nexus-rig-") as scratch:
        kernel = provider.fetch_kernel(offer, Path(scratch))
        qemu = find_qemu()
        bootable = kernel_file(qemu, kernel.vmlinux, kernel.directory / "bzImage")
        problem = kvm.kvm_problem(qemu, bootable, default_directory())
    return problem.text if problem else ""


def rig_problem() -> str:
    """Why there can be no rig here; empty where it can be made and run."""
    if platform.machine() != "x86_64":
        return "the rig emulates x86_64, which Firecracker's suite would need here as well"
    if Cache(default_directory()).has(build.key()):
        return ""
    if os.geteuid() != 0:
        return "making the rig's Debian needs root: run `./nexus test` as root, once"
    try:
        archive_of(system_sources(), "amd64")
    except NexusError as error:
        return f"the rig is made of Debian's packages: {error.text}"
    return ""


def firecracker() -> Path | None:
    """The directory of the programs firecracker and jailer; None where no guest of theirs runs.

    In level 1 they are installed; on a host with KVM that works, the locked wheel is unpacked.
    """
    if is_level1():
        return PROGRAMS
    if kvm_problem():
        return None
    made = default_directory().parent / "firecracker"
    with Cache(made).entry(digest(build.FIRECRACKER), _unpack) as entry:
        return entry


def _unpack(out: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="nexus-rig-") as scratch:
        build.install_firecracker(Path(scratch), out)

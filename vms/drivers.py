"""The hypervisor drivers, set up for this host. Which of them a VM gets: ``vms.choice``."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from django.conf import settings

from guest_agent.binary import host_tsc_khz
from images import services as image_services
from nexus_site.core.errors import Invalid
from vms.hypervisors.base import Hypervisor
from vms.hypervisors.firecracker import Firecracker, FirecrackerBinary
from vms.hypervisors.firecracker.network import HostNetwork
from vms.hypervisors.qemu import Qemu
from vms.models import VM

QEMU, FIRECRACKER = VM.Hypervisor.QEMU.value, VM.Hypervisor.FIRECRACKER.value
NAMES = (FIRECRACKER, QEMU)


@cache
def driver_for(name: str, kernel: Path | None = None) -> Hypervisor:
    """The driver called ``name``, set up once; its probe's answer is kept on disk.

    Firecracker's probe tries KVM with ``kernel``, where that was never done; QEMU's does not
    start a guest.
    """
    nexus = settings.NEXUS
    seconds, arguments = nexus.kvm_trial_seconds, tuple(nexus.guest_kernel_args.split())
    if name == QEMU:
        return Qemu(
            nexus.run_dir,
            tsc_khz=host_tsc_khz(),
            trial_seconds=seconds,
            trial_arguments=arguments,
        )
    if name == FIRECRACKER:
        return Firecracker(
            nexus.run_dir,
            installed_firecracker,
            trial_seconds=seconds,
            trial_arguments=arguments,
            kernel=kernel,
            networks=HostNetwork(nexus.network),
        )
    raise Invalid(
        f"There is no hypervisor “{name}”.",
        hint=f"There are: {', '.join(NAMES)}",
        code="unknown-hypervisor",
    )


def installed_firecracker() -> FirecrackerBinary | None:
    """The release for the next VM; None without one."""
    release = image_services.default_release()
    if release is None:
        return None
    return FirecrackerBinary(release.firecracker, release.jailer, release.version)


def driver_of(vm: VM) -> Hypervisor:
    """The driver of what runs for ``vm``, or ran last; any will do where nothing ever has."""
    return driver_for(vm.vmm or QEMU)

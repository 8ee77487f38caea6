"""Which hypervisor drivers there are, set up for this host, and which of them a VM gets."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from guest_agent.binary import host_tsc_khz
from nexus_site.core.errors import Invalid
from vms.hypervisors.base import Hypervisor
from vms.hypervisors.qemu import Qemu
from vms.models import VM

QEMU = "qemu"
NAMES = (QEMU,)


@cache
def driver_for(name: str) -> Hypervisor:
    """The driver called ``name``; one instance a process, its probe's answer kept on disk."""
    if name == QEMU:
        return Qemu(settings.NEXUS.run_dir, tsc_khz=host_tsc_khz())
    raise Invalid(
        f"There is no hypervisor “{name}”.",
        hint=f"There are: {', '.join(NAMES)}",
        code="unknown-hypervisor",
    )


def driver_of(vm: VM) -> Hypervisor:
    """The driver of what runs for ``vm``, or ran last; any will do where nothing ever has."""
    return driver_for(vm.vmm or QEMU)


def choose(vm: VM) -> Hypervisor:
    """The driver that the next start of ``vm`` is to use, by its wish and by what works here."""
    return driver_for(QEMU if vm.hypervisor == VM.Hypervisor.AUTO else vm.hypervisor)

"""Which hypervisor drivers there are, set up for this host."""

from __future__ import annotations

from functools import cache

from django.conf import settings

from guest_agent.binary import host_tsc_khz
from nexus_site.core.errors import Invalid
from vms.hypervisors.base import Hypervisor
from vms.hypervisors.qemu import Qemu

DEFAULT = "qemu"


@cache
def driver_for(name: str) -> Hypervisor:
    """The driver called ``name``; one instance a process, its probe's answer kept on disk."""
    return _known(name)(settings.NEXUS.run_dir, tsc_khz=host_tsc_khz())


def _known(name: str) -> type[Qemu]:
    if name != DEFAULT:
        raise Invalid(
            f"There is no hypervisor “{name}”.",
            hint=f"There is: {DEFAULT}",
            code="unknown-hypervisor",
        )
    return Qemu

"""Which hypervisor drivers there are, set up for this host."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

from django.conf import settings

from guest_agent.binary import agent_path
from images.services import host_arch
from nexus_site.core.errors import Invalid
from nexus_site.core.models import Setting
from vms.hypervisors.base import Hypervisor
from vms.hypervisors.qemu import Qemu

DEFAULT = "qemu"


@cache
def driver_for(name: str) -> Hypervisor:
    """The driver called ``name``; one instance a process, its probe's answer kept on disk."""
    if name != DEFAULT:
        raise Invalid(
            f"There is no hypervisor “{name}”.",
            hint=f"There is: {DEFAULT}",
            code="unknown-hypervisor",
        )
    return Qemu(settings.NEXUS.run_dir, tsc_khz=host_tsc_khz())


def host_tsc_khz() -> int | None:
    """The frequency of the host's time-stamp counter, measured once a boot of the host.

    Emulated guests see the host's counter and need its frequency. None where there is no
    such counter (other architectures), or it cannot be measured.
    """
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    kept = Setting.objects.filter(key="host.tsc").first()
    if kept is not None and kept.value["boot_id"] == boot_id:
        return int(kept.value["khz"]) if kept.value["khz"] else None
    khz = _measure_tsc()
    Setting.objects.update_or_create(
        key="host.tsc", defaults={"value": {"boot_id": boot_id, "khz": khz}}
    )
    return khz


def _measure_tsc() -> int | None:
    try:
        done = subprocess.run(
            [agent_path(host_arch()), "tsc"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return int(done.stdout.split()[0])

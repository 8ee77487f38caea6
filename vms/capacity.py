"""What the host has, and how much of it is promised to VMs."""

from __future__ import annotations

from dataclasses import dataclass

import psutil
from django.conf import settings
from django.db.models import Sum

from nexus_site.core.errors import Conflict, Invalid
from vms.models import VM
from vms.states import WITH_VMM

MIB = 1024 * 1024
MIN_MEMORY_MIB = 64


@dataclass(frozen=True)
class HostCapacity:
    """Sizes in MiB or bytes as named; ``assigned`` counts the VMs that have a VMM."""

    cpus: int
    cpus_assigned: int
    memory_mib: int
    memory_available_mib: int
    memory_assigned_mib: int
    disk_total_bytes: int
    disk_free_bytes: int
    load_1m: float


def host_capacity() -> HostCapacity:
    """What this host has and how much of it running VMs were given."""
    memory = psutil.virtual_memory()
    disk = psutil.disk_usage(str(settings.NEXUS.data_dir))
    assigned = VM.objects.filter(state__in=WITH_VMM).aggregate(
        cpus=Sum("vcpu_count", default=0), memory=Sum("mem_size_mib", default=0)
    )
    return HostCapacity(
        cpus=psutil.cpu_count() or 1,
        cpus_assigned=assigned["cpus"],
        memory_mib=memory.total // MIB,
        memory_available_mib=memory.available // MIB,
        memory_assigned_mib=assigned["memory"],
        disk_total_bytes=disk.total,
        disk_free_bytes=disk.free,
        load_1m=psutil.getloadavg()[0],
    )


def require_room(what: str, *, memory_bytes: float = 0, disk_bytes: float = 0) -> None:
    """Raise ``Conflict`` (code "no-room") with the numbers where the host has less left than
    ``what`` (“Resume VM web”) needs."""
    host = host_capacity()
    kinds = (
        ("of memory", memory_bytes, host.memory_available_mib * MIB),
        ("on the disk", disk_bytes, host.disk_free_bytes),
    )
    for where, needed, free in kinds:
        if needed > free:
            raise Conflict(
                f"There is no room for “{what}”: {needed / MIB:.0f} MiB {where} are needed, "
                f"{free / MIB:.0f} MiB are free.",
                hint="Stop or suspend VMs that are not needed, delete drives and checkpoints that "
                "are not, or ask for fewer.",
                code="no-room",
            )


def check_size(vcpu_count: int, mem_size_mib: int) -> None:
    """Raise ``Invalid`` with the host's numbers when a VM would be larger than the host."""
    cpus, memory = psutil.cpu_count() or 1, psutil.virtual_memory().total // MIB
    if not 1 <= vcpu_count <= cpus:
        raise Invalid(
            f"A VM here has 1 to {cpus} CPUs; {vcpu_count} were asked for.",
            hint=f"This host has {cpus} CPUs.",
            code="too-many-cpus",
            extra={"host": {"cpus": cpus}},
        )
    if not MIN_MEMORY_MIB <= mem_size_mib <= memory:
        raise Invalid(
            f"A VM here has {MIN_MEMORY_MIB} to {memory} MiB of memory; "
            f"{mem_size_mib} were asked for.",
            hint=f"This host has {memory} MiB, "
            f"{psutil.virtual_memory().available // MIB} of them free now.",
            code="memory-size",
            extra={"host": {"memory_mib": memory}},
        )

"""From what guests and VMMs count to what they use: one sample from each two looks.

A guest is not believed: what counts backwards or faster than any machine could is not known, and
only the disks and interfaces that Nexus gives a VM count, since a guest may make others of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import psutil
from django.conf import settings

from vms.hypervisors import monitor
from vms.hypervisors.base import Handle
from vms.models import VM, Sample

FASTEST = 1 << 40  # bytes in a second
_DISKS, _INTERFACES = ("vd", "sd"), ("e",)  # vda, sda; eth0, ens3

Counts = dict[str, int]


@dataclass(frozen=True, slots=True)
class GuestCounters:
    """What a guest has counted since its start; None and empty where it said nothing.

    ``cpu``: hundredths of a second in which its processors were busy, and that there were at all.
    Disks and interfaces: bytes, by name.
    """

    cpu: tuple[int, int] | None = None
    disk_read: Counts = field(default_factory=dict)
    disk_write: Counts = field(default_factory=dict)
    net_rx: Counts = field(default_factory=dict)
    net_tx: Counts = field(default_factory=dict)

    @classmethod
    def of(cls, heartbeat: Mapping[str, Any]) -> GuestCounters:
        """Those of a heartbeat as ``Heartbeat.to_dict`` gives it."""
        cpu = heartbeat.get("cpu")
        disks = _named(heartbeat.get("io") or (), "device", _DISKS)
        interfaces = _named(heartbeat.get("network") or (), "name", _INTERFACES)
        return cls(
            cpu=_busy_and_all(cpu) if cpu else None,
            disk_read={name: row["read_bytes"] for name, row in disks.items()},
            disk_write={name: row["write_bytes"] for name, row in disks.items()},
            net_rx={name: row["rx_bytes"] for name, row in interfaces.items()},
            net_tx={name: row["tx_bytes"] for name, row in interfaces.items()},
        )


@dataclass(frozen=True, slots=True)
class VmmUsage:
    """Seconds of the host's processors that a VMM has had, and bytes it has in memory."""

    cpu_seconds: float
    memory: int

    @classmethod
    def of(cls, handle: Handle) -> VmmUsage | None:
        """That of a VMM, which has not ended as far as is known; None when it has."""
        try:
            if not monitor.runs(handle.pid, handle.started):
                return None
            process = psutil.Process(handle.pid)
            times = process.cpu_times()
            return cls(times.user + times.system, process.memory_info().rss)
        except psutil.Error:
            return None


@dataclass(frozen=True, slots=True)
class Look:
    """Guest and VMM at one moment, ``at`` of the monotonic clock."""

    at: float
    guest: GuestCounters
    vmm: VmmUsage | None


class Sampler:
    """Keeps what one VM uses, at most once each ``heartbeat_interval``."""

    def __init__(self, vm: VM, handle: Handle) -> None:
        self._vm, self._handle = vm, handle
        self._before: Look | None = None

    def keep(self, heartbeat: Mapping[str, Any], at: float) -> None:
        """Write what was used since the last sample.

        ``heartbeat``: the answer that came ``at`` so many seconds of the monotonic clock.
        """
        before = self._before
        if before is not None and at - before.at < settings.NEXUS.heartbeat_interval:
            return
        self._before = now = Look(at, GuestCounters.of(heartbeat), VmmUsage.of(self._handle))
        Sample.objects.create(
            vm=self._vm,
            at=int(time.time()),
            seconds=now.at - before.at if before else 0.0,
            memory_used=_used(heartbeat),
            memory_total=heartbeat.get("memory_total"),
            vmm_memory=now.vmm.memory if now.vmm else None,
            **(rates(before, now) if before else {}),
        )


def rates(before: Look, now: Look) -> dict[str, float | None]:
    """What was used between two looks, under the names of the fields of ``Sample``."""
    seconds, was, is_ = now.at - before.at, before.guest, now.guest
    return {
        "cpu": share(was.cpu, is_.cpu),
        "disk_read": byte_rate(was.disk_read, is_.disk_read, seconds),
        "disk_write": byte_rate(was.disk_write, is_.disk_write, seconds),
        "net_rx": byte_rate(was.net_rx, is_.net_rx, seconds),
        "net_tx": byte_rate(was.net_tx, is_.net_tx, seconds),
        "vmm_cpu": _vmm_cpu(before.vmm, now.vmm, seconds),
    }


def share(before: tuple[int, int] | None, now: tuple[int, int] | None) -> float | None:
    """How much of the time in between was busy, 0 to 1; each is busy time and all of it."""
    if before is None or now is None:
        return None
    worked, passed = now[0] - before[0], now[1] - before[1]
    if worked < 0 or passed <= 0:
        return None
    return round(min(worked / passed, 1.0), 4)


def byte_rate(before: Counts, now: Counts, seconds: float) -> float | None:
    """Bytes in a second of all devices that are in both; None when any counted backwards.

    A whole number, which a database keeps in few bytes.
    """
    both = before.keys() & now.keys()
    deltas = [now[name] - before[name] for name in both]
    if not deltas or seconds <= 0 or min(deltas) < 0:
        return None
    rate = sum(deltas) / seconds
    return float(round(rate)) if rate <= FASTEST else None


def _vmm_cpu(before: VmmUsage | None, now: VmmUsage | None, seconds: float) -> float | None:
    if before is None or now is None or seconds <= 0:
        return None
    worked = now.cpu_seconds - before.cpu_seconds
    return round(min(worked / seconds, os.cpu_count() or 1), 4) if worked >= 0 else None


def _busy_and_all(cpu: Mapping[str, int]) -> tuple[int, int]:
    busy = cpu["user"] + cpu["system"]
    return busy, busy + cpu["idle"] + cpu["iowait"] + cpu["steal"]


def _used(heartbeat: Mapping[str, Any]) -> int | None:
    """Bytes that a guest's programs use; None for what cannot be."""
    total, available = heartbeat.get("memory_total"), heartbeat.get("memory_available")
    if total is None or available is None or available > total:
        return None
    return int(total - available)


def _named(
    rows: Iterable[dict[str, Any]], key: str, prefixes: tuple[str, ...]
) -> dict[str, dict[str, Any]]:
    """``rows`` by name; of two with one name, which is a lie, the last."""
    return {row[key]: row for row in rows if row[key].startswith(prefixes)}

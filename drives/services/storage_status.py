"""What the storage is, how full it is, and what each drive costs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from drives.live import live
from drives.models import Drive, Snapshot
from drives.services.places import file_of, storage
from drives.services.queries import all_drives, all_snapshots
from drives.storage import Capacity, Description, Usage
from nexus_site.core.errors import NotFound

R = TypeVar("R", bound=Drive | Snapshot)


@dataclass(frozen=True)
class Cost(Generic[R]):
    """A drive or a snapshot, and what it takes; None where its file is not there (yet)."""

    row: R
    usage: Usage | None


@dataclass(frozen=True)
class Totals:
    """Of all drives and snapshots. ``used_bytes`` counts shared blocks once in each of them;
    ``exclusive_bytes`` is None where the backend cannot tell."""

    drives: int
    snapshots: int
    size_bytes: int
    used_bytes: int
    exclusive_bytes: int | None
    memory_bytes: int  # of suspended VMs and of checkpoints, beside those


@dataclass(frozen=True)
class StorageStatus:
    """The storage of this host, for people."""

    description: Description
    capacity: Capacity
    totals: Totals
    drives: list[Cost[Drive]]
    snapshots: list[Cost[Snapshot]]


def storage_status() -> StorageStatus:
    """What the storage is and holds now, drives and snapshots by name."""
    in_use = storage()
    drives = [Cost(drive, usage_of(drive)) for drive in all_drives().order_by("name")]
    snapshots = [Cost(row, usage_of(row)) for row in all_snapshots().order_by("name")]
    found = [cost.usage for cost in drives] + [cost.usage for cost in snapshots]
    usages = [usage for usage in found if usage is not None]
    exclusive = [usage.exclusive_bytes for usage in usages]
    totals = Totals(
        drives=len(drives),
        snapshots=len(snapshots),
        size_bytes=sum(usage.size_bytes for usage in usages),
        used_bytes=sum(usage.used_bytes for usage in usages),
        exclusive_bytes=sum(part or 0 for part in exclusive) if None not in exclusive else None,
        memory_bytes=live().memory_bytes(),
    )
    return StorageStatus(in_use.describe(), in_use.capacity(), totals, drives, snapshots)


def usage_of(row: Drive | Snapshot) -> Usage | None:
    """What a drive or a snapshot takes on the disk; None when its file is not there."""
    try:
        return storage().usage(file_of(row))
    except NotFound:
        return None

"""What keeping drives needs on this host."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from drives.storage import open_storage, probe_all
from drives.storage.pool import find_tool
from nexus_site.core.errors import NexusError
from nexus_site.core.health import LOW, Finding

_GIB = 1 << 30
_COPIES = {
    "btrfs": "",
    "reflink": "Copies share their blocks; what each drive takes alone is not known.",
    "copy": "Copies of drives are made byte by byte: they take time and room.",
}


def findings() -> list[Finding]:
    """The storage that this data directory gets, and the tools of better ones. Tries them."""
    storage = _storage()
    return [storage, _btrfs_progs(needed=storage.state != "fine")]


def _storage() -> Finding:
    data_dir = Path(settings.NEXUS.data_dir)
    try:
        storage = open_storage(data_dir)
        told, capacity = storage.describe(), storage.capacity()
    except NexusError as error:
        found = f"{error.text} {error.detail}".strip()
        fix, _, command = error.hint.partition(": ")
        meaning = "No drive can be made or used."
        return Finding("storage", "Storage", "missing", found, meaning, fix, command)
    free = f"{capacity.free_bytes / _GIB:.1f} of {capacity.total_bytes / _GIB:.1f} GiB free"
    found = f"{told.backend} on {told.file_system}, {free}"
    if capacity.free_bytes < capacity.total_bytes * LOW:
        return Finding(
            "storage",
            "Storage",
            "limited",
            found,
            "Guests that write into a full storage see errors.",
            "Delete drives and snapshots that nobody needs; see what each takes.",
            "nexusctl storage status",
        )
    if told.backend != "copy":
        return Finding("storage", "Storage", "fine", found, _COPIES[told.backend])
    better = [probe.problem for probe in probe_all(data_dir) if not probe.usable]
    meaning = " ".join((_COPIES["copy"], *better))
    fix = "Make a btrfs in a file, before there are drives. Nexus must run as root for that."
    command = "nexusctl storage init --loopback 20G"
    return Finding("storage", "Storage", "limited", found, meaning, fix, command)


def _btrfs_progs(needed: bool) -> Finding:
    """``mkfs.btrfs`` is asked for where there is something to gain from it."""
    try:
        path = find_tool("mkfs.btrfs")
    except NexusError as error:
        if not needed:
            return Finding("btrfs-progs", "btrfs-progs", "fine", "Not here, and not needed")
        fix, _, command = error.hint.partition(": ")
        return Finding(
            "btrfs-progs",
            "btrfs-progs",
            "limited",
            "mkfs.btrfs is missing",
            "No pool can be made for drives.",
            f"{fix}.",
            command,
        )
    return Finding("btrfs-progs", "btrfs-progs", "fine", path)

"""Storage for drives; the backend is chosen by what is there, else by probing."""

from __future__ import annotations

from pathlib import Path

from drives.storage import pool
from drives.storage.base import Capacity, Description, Inventory, Probe, Storage, Usage
from drives.storage.btrfs import BtrfsStorage
from drives.storage.copy import CopyStorage
from drives.storage.pool import create_pool
from drives.storage.reflink import ReflinkStorage
from nexus_site.core.errors import Broken

__all__ = [
    "BACKENDS",
    "Capacity",
    "Description",
    "Inventory",
    "Probe",
    "Storage",
    "Usage",
    "create_pool",
    "open_storage",
    "probe_all",
]

# The best first.
BACKENDS: tuple[type[Storage], ...] = (BtrfsStorage, ReflinkStorage, CopyStorage)
# Which of them can go on with drives that are there already.
_LAYOUTS: dict[str, tuple[str, ...]] = {
    "": ("btrfs", "reflink", "copy"),
    "files": ("reflink", "copy"),
    "subvolumes": ("btrfs",),
}
_HINT = (
    "As root, Nexus makes a btrfs of its own: nexusctl storage init --loopback 20G (it must have "
    "no drives yet)."
)


def open_storage(data_dir: Path) -> Storage:
    """The best backend that works on ``data_dir`` and on the drives that it has.

    ``Broken`` says why none does, or how to mount the pool that it needs.
    """
    pool.ensure_mounted(data_dir)
    usable = _LAYOUTS[pool.layout_of(pool.root_of(data_dir) / "drives")]
    problems = []
    for backend in BACKENDS:
        if backend.name not in usable:
            problems.append(f"{backend.name}: The drives here were made by another backend.")
            continue
        probe = backend.probe(data_dir)
        if probe.usable:
            return backend(data_dir, [*problems, _HINT] if backend.name == "copy" else problems)
        problems.append(f"{probe.name}: {probe.problem}")
    raise Broken(
        "No storage works in the data directory.",
        detail="\n".join(problems),
        hint="Nexus must own its data directory, and it must be writable.",
        code="storage-unusable",
    )


def probe_all(data_dir: Path) -> list[Probe]:
    """Every backend's answer, for doctor and Health."""
    pool.ensure_mounted(data_dir)
    return [backend.probe(data_dir) for backend in BACKENDS]

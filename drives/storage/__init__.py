"""Storage for drives and images; the backend is chosen by probing the data directory."""

from __future__ import annotations

from pathlib import Path

from drives.storage.base import Capacity, Probe, Storage, Usage
from drives.storage.copy import CopyStorage
from nexus_site.core.errors import Broken

__all__ = ["BACKENDS", "Capacity", "Probe", "Storage", "Usage", "open_storage", "probe_all"]

# The best first.
BACKENDS: tuple[type[Storage], ...] = (CopyStorage,)


def open_storage(data_dir: Path) -> Storage:
    """The best backend that works on ``data_dir``; ``Broken`` says why none does."""
    probes = []
    for backend in BACKENDS:
        probes.append(backend.probe(data_dir))
        if probes[-1].usable:
            return backend(data_dir)
    raise Broken(
        "No storage works in the data directory.",
        detail="\n".join(f"{probe.name}: {probe.problem}" for probe in probes),
        hint="Nexus must own its data directory, and it must be writable.",
        code="storage-unusable",
    )


def probe_all(data_dir: Path) -> list[Probe]:
    """Every backend's answer, for doctor and Health."""
    return [backend.probe(data_dir) for backend in BACKENDS]

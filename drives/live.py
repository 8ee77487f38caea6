"""Drives that running VMs write to.

Drives know what they need of a VM; how VMs run is known above (``vms``), which provides it here
when Django starts. So the room of drives imports nothing of the room of VMs.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from drives.models import Consistency, Drive
from nexus_site.core.errors import Broken
from nexus_site.core.steps import Run


class LiveDrives(Protocol):
    def require_rest(self, drive: Drive, what: str) -> None:
        """Raise ``Conflict`` (code ``vm-runs``, naming the VM) unless the drive is in no VM or in
        one at rest and not busy. ``what``: "be resized" completes "only a drive at rest can …"."""

    def require_settled(self, drive: Drive) -> None:
        """Raise ``Conflict`` (code ``vm-busy``) while the VM that has the drive is starting or
        stopping, so that ``hold`` could not."""

    def hold(self, drives: Sequence[Drive], run: Run) -> AbstractContextManager[Consistency]:
        """Nothing writes to ``drives`` inside the block; they are in no VM or all in one.

        A running VM's file systems are frozen by its agent if that answers, then its CPUs
        stand still until the block ends, however it ends. Yields what the copies made inside
        will be. Raises ``Conflict`` while the VM is starting or stopping.
        """

    def memory_bytes(self) -> int:
        """What the memories of suspended VMs and of checkpoints take on the disk."""

    def forgotten_memories(self) -> Sequence[Path]:
        """Directories where such memories are kept, and which belong to nothing."""


_live: LiveDrives | None = None


def provide(live: LiveDrives) -> None:
    """Called once by the room that runs VMs."""
    global _live
    _live = live


def live() -> LiveDrives:
    if _live is None:
        raise Broken("Nothing here knows which drives are in use.", code="no-live-drives")
    return _live

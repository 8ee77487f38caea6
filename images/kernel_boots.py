"""Trying whether a kernel boots.

Kernels know that they have to be tried; how VMs run is known above (``vms``), which provides the
way here when Django starts. So the room of images imports nothing of the room of VMs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nexus_site.core.errors import Broken


@dataclass(frozen=True)
class KernelFiles:
    """What is tried: an ELF kernel, the initrd that carries the agent, the bzImage if any."""

    vmlinux: Path
    bzimage: Path | None
    initrd: Path


@dataclass(frozen=True)
class BootTry:
    """How one boot went: ``seconds`` from the start of the VMM to the agent's hello, or None and
    the ``problem``; ``console`` has the last lines then, as evidence."""

    vmm: str
    seconds: float | None
    problem: str = ""
    console: str = ""


class KernelBooter(Protocol):
    def usable(self) -> Sequence[str]:
        """The names of the VMMs that work on this host."""

    def boot(
        self, vmm: str, files: KernelFiles, directory: Path, check: Callable[[], None]
    ) -> BootTry:
        """Boot once in ``directory`` (its own, new), until the agent says hello, and end it.

        ``check`` is called about every second and may raise to give up; the VM is gone then.
        """

    def discard(self, directory: Path) -> None:
        """End what still runs in ``directory`` (a killed worker left it); safe to repeat."""


_booter: KernelBooter | None = None


def provide(booter: KernelBooter) -> None:
    """Called once by the room that runs VMs."""
    global _booter
    _booter = booter


def booter() -> KernelBooter:
    if _booter is None:
        raise Broken("Nothing here can boot a kernel.", code="no-kernel-booter")
    return _booter

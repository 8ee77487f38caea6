"""The throw-away VM in which a build's packages and commands run.

Builds know what they need of it; how VMs run is known above (``vms``), which provides one here
when Django starts. So the room of builds imports nothing of the room of VMs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from nexus_site.core.errors import Broken


@dataclass(frozen=True)
class MachineSpec:
    """A VM to build in: ``directory`` is its own (new or left by a killed worker), ``disk`` a
    raw ext4 file system that becomes its root and is written to."""

    directory: Path
    disk: Path
    vcpu_count: int = 1
    mem_size_mib: int = 1024


class Machine(Protocol):
    """A VM that runs, its agent alone in it, with a network."""

    def execute(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: str = "/",
        output: Callable[[bytes], None],
        timeout: float,
    ) -> int:
        """Run a program to its end; its exit code (128 + N where signal N ended it).

        ``output`` is given stdout and stderr as they come, in order. Raises ``Broken`` when the
        VM or its agent is lost, ``Conflict`` (code ``timeout``) after ``timeout`` seconds, and
        whatever ``check`` of ``boot`` raises; the program is ended then.
        """


class MachineProvider(Protocol):
    def boot(
        self, spec: MachineSpec, *, check: Callable[[], None], note: Callable[[str], None]
    ) -> AbstractContextManager[Machine]:
        """A VM for the block: shut down cleanly after it (its disk then holds all that was
        written), killed if the block raises. ``check`` is called about every second and may
        raise to give up; ``note`` is told how far the start is."""

    def discard(self, directory: Path) -> None:
        """End what still runs in ``directory`` (a killed worker left it); safe to repeat."""


_provider: MachineProvider | None = None


def provide(provider: MachineProvider) -> None:
    """Called once by the room that runs VMs."""
    global _provider
    _provider = provider


def provider() -> MachineProvider:
    if _provider is None:
        raise Broken("Nothing here can run a build's VM.", code="no-build-machine")
    return _provider

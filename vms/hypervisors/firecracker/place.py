"""Where a VMM works, and by which names it knows its files.

Names in a place are relative to its root and the same in every place, since a snapshot keeps
them: what was saved in one place goes on in another.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker.binary import FirecrackerBinary

LENT = "lent"


class Place(Protocol):
    """The directory that a VMM sees as its own, and its rights there.

    Made from a VM's directory, ref and slot alone, so that a process that knows no more of the
    VM can clean up.
    """

    @property
    def root(self) -> Path:
        """That directory as the host sees it; the VMM's sockets and FIFOs are in it."""

    @property
    def uid(self) -> int | None:
        """Whom (user and group alike) the VMM runs as; None: as we do."""

    def prepare(self) -> None:
        """Make the root, empty of what an earlier VMM left there."""

    def lend(self, name: str, path: Path, *, writable: bool = False) -> str:
        """Let the VMM use the file; returns what it calls it: "lent/<name>".

        It may read (and write, if `writable`) the file then, whoever owns it.
        """

    def command(
        self,
        binary: FirecrackerBinary,
        arguments: Sequence[str],
        spec: VmmSpec,
        netns: Path | None,
    ) -> list[str]:
        """What the monitor starts, for `arguments` of Firecracker itself but --id.

        `netns` is the network namespace that the VMM is to be in, as a file.
        """

    def cleanup(self) -> None:
        """Undo all that was made here, also by a process that died amid it; safe to repeat."""


@dataclass(frozen=True)
class NetworkPlan:
    """What a VMM's network device is joined to: a tap, and the namespace that has it."""

    tap: str
    netns: Path | None


class Network(Protocol):
    """The host's side of VMs' networks."""

    def prepare(self, spec: VmmSpec, uid: int | None) -> NetworkPlan:
        """Make it; the VMM will run as `uid` (None: as we do)."""

    def cleanup(self, ref: str) -> None:
        """Undo that; safe to repeat, also where there never was one."""


class OpenPlace:
    """The VM's own directory, without a jail: the VMM may do what we may."""

    uid = None

    def __init__(self, vm_dir: Path, ref: str, slot: int) -> None:
        self.root = vm_dir

    def prepare(self) -> None:
        self.cleanup()
        (self.root / LENT).mkdir()

    def lend(self, name: str, path: Path, *, writable: bool = False) -> str:
        (self.root / LENT / name).symlink_to(path.absolute())
        return f"{LENT}/{name}"

    def command(
        self,
        binary: FirecrackerBinary,
        arguments: Sequence[str],
        spec: VmmSpec,
        netns: Path | None,
    ) -> list[str]:
        if netns is not None:
            raise ValueError("Only a jail can put a VMM into a network namespace.")
        return [str(binary.path), "--id", spec.ref, *arguments]

    def cleanup(self) -> None:
        shutil.rmtree(self.root / LENT, ignore_errors=True)

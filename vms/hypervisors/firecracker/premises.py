"""What one VMM has on the host, its place and its network, found again by any process."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker import bases
from vms.hypervisors.firecracker.jail import Jail
from vms.hypervisors.firecracker.place import Network, NetworkPlan, OpenPlace, Place
from vms.hypervisors.records import read_json, write_json

RECORD = "place.json"


@dataclass(frozen=True)
class Premises:
    """Reserved before anything is on the host, then prepared, and in the end cleaned up."""

    vm_dir: Path
    ref: str
    place: Place
    network: Network | None = None

    @classmethod
    def reserve(cls, spec: VmmSpec, network: Network | None, *, jailed: bool) -> Premises:
        """Those of a VM that is about to start; remembered from here on."""
        record = {
            "ref": spec.ref,
            "slot": spec.slot,
            "jailed": jailed,
            "networked": network is not None,
        }
        write_json(spec.vm_dir / RECORD, record)
        return cls(spec.vm_dir, spec.ref, _place(spec.vm_dir, spec.ref, spec.slot, jailed), network)

    @classmethod
    def of(cls, vm_dir: Path, network: Network) -> Premises:
        """Those of the VMM that was started last in `vm_dir`; open ones if there was none."""
        try:
            record = read_json(vm_dir / RECORD)
        except (FileNotFoundError, json.JSONDecodeError):
            return cls(vm_dir, "", OpenPlace(vm_dir, "", 0))
        ref = record["ref"]
        place = _place(vm_dir, ref, record["slot"], record["jailed"])
        return cls(vm_dir, ref, place, network if record["networked"] else None)

    def prepare(self, spec: VmmSpec) -> NetworkPlan | None:
        """Make them, in place of what an earlier VMM left; the network's plan, if there is one."""
        self.place.prepare()
        return self.network.prepare(spec, self.place.uid) if self.network else None

    def cleanup(self) -> None:
        """Remove all of it from the host; safe to repeat."""
        self.place.cleanup()
        if self.network is not None:
            self.network.cleanup(self.ref)
        bases.forget(self.vm_dir)
        (self.vm_dir / RECORD).unlink(missing_ok=True)
        (self.vm_dir / f"{RECORD}.tmp").unlink(missing_ok=True)


def _place(vm_dir: Path, ref: str, slot: int, jailed: bool) -> Place:
    return (Jail if jailed else OpenPlace)(vm_dir, ref, slot)

"""A VM's memory and devices as Firecracker saves them, and who can load them again.

A snapshot's directory has the VMM's state, the guest's memory, and a page of facts.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Any

from nexus_site.core.errors import Broken, Conflict, Invalid
from vms.hypervisors.base import VmmSpec
from vms.hypervisors.firecracker import api, hostile
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.firecracker.place import Place
from vms.hypervisors.records import read_json, write_json

STATE, MEMORY, FACTS = "vmm.state", "memory", "snapshot.json"
FORMAT = 1
SAVE_SECONDS = 900.0
CPUINFO = Path("/proc/cpuinfo")
# What must be the same there and here, for people.
WORDS = {
    "driver": "The hypervisor",
    "format": "The form of the snapshot",
    "version": "The version of Firecracker",
    "cpu": "The host's CPU",
    "vcpu_count": "The number of CPUs",
    "mem_size_mib": "The memory in MiB",
    "disks": "The number of disks",
    "network": "Whether there is a network",
}


def save(place: Place, directory: Path) -> None:
    """Save the paused guest of the VMM in `place` to `directory`; see `Hypervisor.snapshot`."""
    instance, config = api.ask(place.root, Request("GET", "/"), Request("GET", "/vm/config"))
    with api.understood():
        state, facts = instance["state"], _facts(str(instance["vmm_version"]), config)
    if state != "Paused":
        raise Conflict("The VM runs; pause it before its memory is saved.", code="vmm-state")
    try:
        _create(place, directory, facts)
    except BaseException as error:
        for name in (STATE, MEMORY, FACTS):
            hostile.remove(place.root, name)
            (directory / name).unlink(missing_ok=True)
        if isinstance(error, Conflict | OSError):
            detail = error.detail if isinstance(error, Conflict) else str(error)
            text = "The VM's memory could not be saved."
            raise Broken(text, detail=detail, code="snapshot-failed") from error
        raise


def _create(place: Place, directory: Path, facts: dict[str, Any]) -> None:
    """The VMM writes to its own root, which is all that it sees."""
    files = {"snapshot_path": STATE, "mem_file_path": MEMORY}
    create = Request("PUT", "/snapshot/create", {"snapshot_type": "Full"} | files)
    api.ask(place.root, create, timeout=SAVE_SECONDS)
    for name in (STATE, MEMORY):
        hostile.take_file(place.root, name, directory / name)
    size = (directory / STATE).stat().st_size
    write_json(directory / FACTS, facts | {"state_size": size})


def load_request(memory: str, state: str) -> Request:
    """The call that loads a snapshot, whose files the VMM calls so, and lets its guest go on."""
    backend = {"backend_type": "File", "backend_path": memory}
    body = {"snapshot_path": state, "mem_backend": backend, "resume_vm": True}
    return Request("PUT", "/snapshot/load", body)


def check(directory: Path, spec: VmmSpec, version: str, *, networked: bool) -> None:
    """Raise Invalid (code "snapshot-incompatible") unless this host can load it for `spec`."""
    try:
        facts = read_json(directory / FACTS)
    except (OSError, ValueError) as error:
        raise incompatible("It is not whole, or another hypervisor's.", str(error)) from None
    if not isinstance(facts, dict):
        raise incompatible("It is not whole.")
    here = _host_facts(version) | {
        "vcpu_count": spec.vcpu_count,
        "mem_size_mib": spec.mem_size_mib,
        "disks": len(spec.disks),
        "network": networked,
    }
    for name, value in here.items():
        if facts.get(name) != value:
            raise incompatible(f"{WORDS[name]}: {facts.get(name)} there, {value} here.")
    sizes = {STATE: facts.get("state_size"), MEMORY: spec.mem_size_mib * 2**20}
    for name, size in sizes.items():
        with suppress(FileNotFoundError):
            if (directory / name).stat().st_size == size:
                continue
        raise incompatible(f"Its file {name} is missing or cut off.")


def incompatible(why: str, detail: str = "") -> Invalid:
    return Invalid(
        f"This snapshot's memory cannot be loaded here. {why}",
        detail=detail,
        hint="Start the VM from the snapshot's drives alone: it boots anew.",
        code="snapshot-incompatible",
    )


def _facts(version: str, config: dict[str, Any]) -> dict[str, Any]:
    """What `check` compares, of a VMM with this configuration."""
    machine = config["machine-config"]
    return _host_facts(version) | {
        "vcpu_count": int(machine["vcpu_count"]),
        "mem_size_mib": int(machine["mem_size_mib"]),
        "disks": len(config["drives"]),
        "network": bool(config["network-interfaces"]),
    }


def _host_facts(version: str) -> dict[str, Any]:
    return {"driver": "firecracker", "format": FORMAT, "version": version, "cpu": _cpu_model()}


def _cpu_model() -> str:
    for line in CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return ""

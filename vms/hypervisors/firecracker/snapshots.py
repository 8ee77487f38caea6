"""A VM's memory and devices as Firecracker saves them, and who can load them again.

A snapshot's directory has the VMM's state, the guest's memory, and a page of facts.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from nexus_site.core.errors import Broken, Conflict, Invalid
from vms.hypervisors.base import Handle, VmmSpec
from vms.hypervisors.firecracker import api, bases, changes, hostile
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.firecracker.place import Place
from vms.hypervisors.records import read_json, write_json

STATE, MEMORY, FACTS = "vmm.state", "memory", "snapshot.json"
# While its memory is two files, which `complete` makes one of, a directory has no facts.
BASE, CHANGES, PENDING = "memory.base", "memory.changes", "pending.json"
FILES = (STATE, MEMORY, FACTS, BASE, CHANGES, PENDING)
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


def save(place: Place, handle: Handle, directory: Path, *, later: bool) -> None:
    """Save the paused guest of the VMM in `place` to `directory`; see `Hypervisor.snapshot`.

    Where the VMM has counted what its guest changed since the memory that is its base, it writes
    no more than that.
    """
    instance, config = api.ask(place.root, Request("GET", "/"), Request("GET", "/vm/config"))
    with api.understood():
        state, facts = instance["state"], _facts(str(instance["vmm_version"]), config)
        tracks, shrunk = _tracks_changes(config), _is_shrunk(config)
    if state != "Paused":
        raise Conflict("The VM runs; pause it before its memory is saved.", code="vmm-state")
    size = facts["mem_size_mib"] * 2**20
    with _nothing_left_if_it_fails(directory, place):
        has_base = bases.take(handle, directory / BASE, size)
        if has_base and tracks and not shrunk and _tells_changes(place, directory, size):
            _save_changes(place, handle, directory, facts)
        else:
            (directory / BASE).unlink(missing_ok=True)
            _create(place, directory, "Full", MEMORY)
            if tracks and not shrunk:
                bases.remember(handle, directory / MEMORY)
            _write_facts(directory, facts)
    if not later:
        complete(directory)


def complete(directory: Path) -> None:
    """See `Hypervisor.complete`. The time of the memory says last that it is whole."""
    try:
        pending = read_json(directory / PENDING)
    except FileNotFoundError:
        return
    memory, whole_at = directory / MEMORY, pending["whole_at"]
    with _nothing_left_if_it_fails(directory):
        changes.merge(directory / BASE, directory / CHANGES, memory)
        _write_facts(directory, pending["facts"])
        os.utime(memory, ns=(whole_at, whole_at))
        for name in (PENDING, BASE, CHANGES):
            (directory / name).unlink()


def _save_changes(place: Place, handle: Handle, directory: Path, facts: dict[str, Any]) -> None:
    """The changes and their base, which `complete` makes one file of. That exists already, so
    that the VMM's next changes can be counted from it."""
    hostile.remove(place.root, MEMORY)  # the VMM would write its changes into it
    _create(place, directory, "Diff", CHANGES)
    (directory / MEMORY).touch(0o600, exist_ok=False)
    whole_at = int(time.time() - 60) * 10**9  # none that writing to it now could give it
    write_json(directory / PENDING, {"facts": facts, "whole_at": whole_at})
    bases.remember(handle, directory / MEMORY, whole_at)


def _create(place: Place, directory: Path, kind: str, memory: str) -> None:
    """The VMM writes to its own root, which is all that it sees."""
    files = {"snapshot_path": STATE, "mem_file_path": MEMORY}
    create = Request("PUT", "/snapshot/create", {"snapshot_type": kind} | files)
    api.ask(place.root, create, timeout=SAVE_SECONDS)
    hostile.take_file(place.root, STATE, directory / STATE)
    hostile.take_file(place.root, MEMORY, directory / memory)


def _write_facts(directory: Path, facts: dict[str, Any]) -> None:
    size = (directory / STATE).stat().st_size
    write_json(directory / FACTS, facts | {"state_size": size})


@contextmanager
def _nothing_left_if_it_fails(directory: Path, place: Place | None = None) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        for name in FILES:
            if place is not None:
                hostile.remove(place.root, name)
            (directory / name).unlink(missing_ok=True)
        if isinstance(error, Conflict | OSError):
            detail = error.detail if isinstance(error, Conflict) else str(error)
            text = "The VM's memory could not be saved."
            raise Broken(text, detail=detail, code="snapshot-failed") from error
        raise


def _tracks_changes(config: dict[str, Any]) -> bool:
    return config["machine-config"].get("track_dirty_pages") is True


def _is_shrunk(config: dict[str, Any]) -> bool:
    """Whether the guest gives memory back: those pages are zero from then on, uncounted."""
    return bool((config.get("balloon") or {"amount_mib": 1})["amount_mib"])


def _tells_changes(place: Place, directory: Path, size: int) -> bool:
    """A copy to another file system might have other holes."""
    same = place.root.stat().st_dev == directory.stat().st_dev
    return same and changes.tells_pages(directory, size)


def load_request(memory: str, state: str) -> Request:
    """The call that loads a snapshot, whose files the VMM calls so, and lets its guest go on.

    What that writes is counted: a page of a mapped file is a fault at the first write anyway.
    """
    body = {
        "snapshot_path": state,
        "mem_backend": {"backend_type": "File", "backend_path": memory},
        "enable_diff_snapshots": True,
        "resume_vm": True,
    }
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

"""A saved guest: what is in its directory, and where it can go on.

- `state`: QEMU's devices and CPUs; the memory as well, if `memory` is not there;
- `memory`: the guest's memory, sparse. Restored guests map it, so nobody may ever write to it
  (removing it is no harm);
- `snapshot.json`: what a QEMU must be like to load this, and how the files can be checked. It is
  written last: a directory without it holds nothing.

Whoever only reads a file does not change its time of modification. So a file of the right size
and time is taken for whole without being read; any other is held against its checksum.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

from nexus_site.core.errors import Broken, Conflict, Invalid
from vms.hypervisors.base import Disk, Handle
from vms.hypervisors.monitor import read_json, write_json
from vms.hypervisors.monitored import launched_with
from vms.hypervisors.qemu import hotplug, memory, migration, qmp
from vms.hypervisors.qemu.command import MEMORY
from vms.hypervisors.qemu.disks import ScsiAddress, plugged_name

STATE, MEMORY_FILE, RECORD = "state", "memory", "snapshot.json"
FILES = (STATE, MEMORY_FILE, RECORD, f"{RECORD}.tmp")
DRIVER, FORMAT = "qemu", 1
SECTOR = 512
SAVED = "postmigrate"  # QEMU's name for a paused guest whose state it has written
TSC_TOLERANCE = 1e-3  # measured anew at each start of Nexus
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
Machine = dict[str, object]


@dataclass(frozen=True)
class Snapshot:
    """What was read of a directory. `machine` has the machine's properties by their names."""

    directory: Path
    machine: Machine
    plugged: dict[str, ScsiAddress]

    @property
    def memory(self) -> Path | None:
        """The file to map; None where the memory is in the state."""
        path = self.directory / MEMORY_FILE
        return path if path.exists() else None

    def load(self, vm_dir: Path) -> None:
        """Give the guest to the QEMU that waits for it in `vm_dir`, and let it go on."""
        with (self.directory / STATE).open("rb") as state:
            migration.load(vm_dir, state.fileno(), shared_memory=self.memory is not None)

    def require_same(self, machine: Machine) -> None:
        """Invalid ("snapshot-incompatible") where the guest would not find what it left."""
        differences = [
            f"{name}: saved with {value}, here {machine.get(name)}"
            for name, value in self.machine.items()
            if not _same(name, value, machine.get(name))
        ]
        if differences:
            raise _incompatible("It was saved on another machine.", "\n".join(differences))


def save(handle: Handle, directory: Path, tsc_khz: int | None) -> None:
    """See `Hypervisor.snapshot`; `tsc_khz` is the frequency of the host's TSC."""
    argv = launched_with(handle.vm_dir)
    _require_savable(handle, argv)
    plugged = hotplug.plugged(handle.vm_dir)
    record = {
        "driver": DRIVER,
        "format": FORMAT,
        "saved_at": time.time(),
        "kernel_arguments_sha256": hashlib.sha256(_value(argv, "-append").encode()).hexdigest(),
        "machine": machine(argv, _version(handle.vm_dir), handle.accelerator, tsc_khz)
        | {"disks": _disk_sizes(handle.vm_dir, argv)},
        "plugged": {name: asdict(address) for name, address in plugged.items()},
    }
    with _nothing_left_if_it_fails(directory):
        files = _save_files(handle, directory)
        write_json(str(directory / RECORD), record | {"files": files})


def read(directory: Path) -> Snapshot:
    """What `save` left there. Invalid ("snapshot-incompatible") where a file is not as it was,
    and where another driver, or another version of Nexus, saved it."""
    try:
        record = read_json(str(directory / RECORD))
        if (record["driver"], record["format"]) != (DRIVER, FORMAT):
            raise _incompatible("Another driver saved it, or another version of Nexus.")
        for name, expected in record["files"].items():
            _require_whole(directory / name, expected)
        plugged = {name: ScsiAddress(**place) for name, place in record["plugged"].items()}
        return Snapshot(directory.absolute(), record["machine"], plugged)
    except (OSError, json.JSONDecodeError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(f"{type(error).__name__}: {error}") from error


def machine(argv: list[str], version: str, accelerator: str, tsc_khz: int | None) -> Machine:
    """What must be the same where the guest goes on, from QEMU's command line.

    Not the names and files of the devices, and not the disks that were plugged: those are where
    the snapshot says.
    """
    devices = _values(argv, "-device")
    return {
        "QEMU": version,
        "machine": " ".join([_value(argv, "-machine"), _value(argv, "-bios")]).strip(),
        "accelerator": _value(argv, "-accel"),
        "CPU": f"{_value(argv, '-cpu')}, {_host_cpu()}" if accelerator == "kvm" else "emulated",
        "TSC kHz": tsc_khz,
        "CPUs": _value(argv, "-smp"),
        "memory": _value(argv, "-m"),
        "devices": [word.split(",mac=")[0] for word in devices if not word.startswith("{")],
    }


def disk_sizes(disks: tuple[Disk, ...]) -> dict[str, int]:
    """The size of each disk as its guest sees it, in bytes by the disk's name."""
    return {
        disk.name: -(-disk.path.stat().st_size // SECTOR) * SECTOR
        for disk in disks
        if disk.path.exists()
    }


def _require_savable(handle: Handle, argv: list[str]) -> None:
    if f"memory-backend={MEMORY}" not in argv:
        raise Conflict(
            "The memory of this VM cannot be saved: it was started by an older Nexus.",
            hint="Stop the VM and start it again.",
            code="vmm-state",
        )
    status = qmp.status(handle.vm_dir)
    if status == SAVED:
        raise Conflict(
            "The VM's memory has been saved since it was paused.",
            hint="Resume the VM before its memory is saved again.",
            code="vmm-state",
        )
    if status != "paused":
        raise Conflict(f"The VM is {status}, not paused.", code="vmm-state")


def _save_files(handle: Handle, directory: Path) -> dict[str, dict[str, int]]:
    """Write the state, then the memory, which does not change any more; their records."""
    shared = memory.memory_of(handle.pid)
    state = directory / STATE
    fd = os.open(state, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        migration.save(handle.vm_dir, fd, shared_memory=shared is not None)
    finally:
        os.close(fd)
    files = {STATE: _file_record(state, memory.checksum(state))}
    if shared is not None:
        copy = directory / MEMORY_FILE
        files[MEMORY_FILE] = _file_record(copy, memory.copy(shared, copy))
    return files


@contextmanager
def _nothing_left_if_it_fails(directory: Path) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        for name in FILES:
            (directory / name).unlink(missing_ok=True)
        if _is_full(error):
            raise Broken(
                "There is not enough space on the disk to save the VM's memory.",
                detail=f"{directory}: {error}",
                hint="Free some space, or save it elsewhere.",
                code="disk-full",
            ) from error
        raise


def _is_full(error: BaseException) -> bool:
    """QEMU says it in words only."""
    if isinstance(error, Broken):
        return os.strerror(errno.ENOSPC) in error.detail
    return isinstance(error, OSError) and error.errno in NO_SPACE


def _file_record(path: Path, checksum: int) -> dict[str, int]:
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "crc32": checksum}


def _require_whole(path: Path, expected: dict[str, int]) -> None:
    stat = path.stat()
    if stat.st_size != expected["bytes"]:
        raise _damaged(f"{path.name} has {stat.st_size} bytes of {expected['bytes']}")
    if stat.st_mtime_ns != expected["mtime_ns"] and memory.checksum(path) != expected["crc32"]:
        raise _damaged(f"{path.name} is not what was saved: its checksum differs")


def _incompatible(why: str, detail: str = "") -> Invalid:
    return Invalid(
        f"The VM's saved memory cannot be loaded here. {why}",
        detail=detail,
        hint="Start the VM anew: only what was in its memory is lost.",
        code="snapshot-incompatible",
    )


def _damaged(detail: str) -> Invalid:
    return _incompatible("It is not as it was saved.", detail)


def _same(name: str, saved: object, here: object) -> bool:
    if name == "TSC kHz" and isinstance(saved, int) and isinstance(here, int):
        return abs(saved - here) <= saved * TSC_TOLERANCE
    return saved == here


def _version(vm_dir: Path) -> str:
    """That of the QEMU that runs the VM; another one may be installed meanwhile."""
    (answer,) = qmp.ask(vm_dir, "query-version")
    numbers = cast("dict[str, dict[str, int]]", answer)["qemu"]
    return f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"


def _disk_sizes(vm_dir: Path, argv: list[str]) -> dict[str, int]:
    (answer,) = qmp.ask(vm_dir, ("query-named-block-nodes", {"flat": True}))
    nodes = {
        node["node-name"]: node["image"]["virtual-size"]
        for node in cast("list[dict[str, Any]]", answer)
    }
    return {name: nodes[node] for node, name in _disk_names(argv, nodes).items()}


def _disk_names(argv: list[str], nodes: dict[str, int]) -> dict[str, str]:
    """The name of each disk by that of its node."""
    prefix = plugged_name("")
    names = {node: node.removeprefix(prefix) for node in nodes if node.startswith(prefix)}
    for device in _values(argv, "-device"):
        words = dict(word.split("=", 1) for word in device.split(",") if "=" in word)
        if device.startswith("virtio-blk"):
            names[words["drive"]] = words["serial"]
    return names


def _host_cpu() -> str:
    """What a guest on KVM sees of the host's CPU: its name, and a digest of its features."""
    lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    features = hashlib.sha256(facts.get("flags", "").encode()).hexdigest()[:12]
    return f"{facts.get('model name', '?')}, features {features}"


def _value(argv: list[str], option: str) -> str:
    """The first value of an option; empty where it is not there."""
    return next(iter(_values(argv, option)), "")


def _values(argv: list[str], option: str) -> list[str]:
    return [value for word, value in pairwise(argv) if word == option]

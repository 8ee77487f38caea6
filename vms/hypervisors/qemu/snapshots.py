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
from vms.hypervisors.monitored import launched_with
from vms.hypervisors.qemu import hotplug, memory, migration, qmp
from vms.hypervisors.qemu.command import MEMORY
from vms.hypervisors.qemu.disks import ScsiAddress, plugged_name
from vms.hypervisors.records import read_json, write_json

STATE, MEMORY_FILE, RECORD = "state", "memory", "snapshot.json"
FILES = (STATE, MEMORY_FILE, RECORD, f"{RECORD}.tmp")
DRIVER, FORMAT = "qemu", 1
SECTOR = 512
SAVED = "postmigrate"  # QEMU's name for a paused guest whose state it has written
TSC_TOLERANCE = 1e-3  # measured anew at each start of Nexus
OWN_NAMES = ("serial=", "mac=")  # the host's business, or in the guest's memory
NO_SPACE = {errno.ENOSPC, errno.EDQUOT}
Machine = dict[str, object]


@dataclass(frozen=True)
class Snapshot:
    """What was read of a directory. `machine` has the machine's properties by their names."""

    directory: Path
    machine: Machine
    plugged: dict[str, ScsiAddress]

    def addresses(self, disks: tuple[Disk, ...]) -> dict[str, ScsiAddress]:
        """Where those of `disks` go that were plugged; the others go where launched ones do.

        Disks keep their names or, as copies of them do, have others: then those that were
        plugged come last, in the order of their addresses.
        """
        if self.plugged.keys() <= {disk.name for disk in disks}:
            return self.plugged
        last = disks[len(disks) - len(self.plugged) :]
        places = sorted(self.plugged.values())
        return {disk.name: place for disk, place in zip(last, places, strict=False)}

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
    status, version, nodes = qmp.ask(
        handle.vm_dir,
        "query-status",
        "query-version",
        ("query-named-block-nodes", {"flat": True}),
    )
    _require_savable(argv, cast("dict[str, str]", status)["status"])
    plugged = hotplug.plugged(handle.vm_dir)
    record = {
        "driver": DRIVER,
        "format": FORMAT,
        "saved_at": time.time(),
        "kernel_arguments_sha256": hashlib.sha256(_value(argv, "-append").encode()).hexdigest(),
        "machine": machine(argv, _version(version), handle.accelerator, tsc_khz)
        | {"disks": _saved_disks(nodes, argv, plugged)},
        "plugged": {name: asdict(address) for name, address in plugged.items()},
    }
    with _nothing_left_if_it_fails(directory):
        files = _save_files(handle, directory)
        write_json(directory / RECORD, record | {"files": files})


def read(directory: Path) -> Snapshot:
    """What `save` left there. Invalid ("snapshot-incompatible") where a file is not as it was,
    and where another driver, or another version of Nexus, saved it."""
    try:
        record = read_json(directory / RECORD)
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
        "devices": [_kind(device) for device in devices if not device.startswith("{")],
    }


def disks(disks: tuple[Disk, ...], plugged: dict[str, ScsiAddress]) -> list[str]:
    """What the guest knows of each disk, in their order on the machine."""
    launched = [disk for disk in disks if disk.name not in plugged]
    late = sorted(
        (disk for disk in disks if disk.name in plugged), key=lambda disk: plugged[disk.name]
    )
    return [_describe(_size(disk.path), disk.read_only) for disk in (*launched, *late)]


def _require_savable(argv: list[str], status: str) -> None:
    if f"memory-backend={MEMORY}" not in argv:
        raise Conflict(
            "The memory of this VM cannot be saved: it was started by an older Nexus.",
            hint="Stop the VM and start it again.",
            code="vmm-state",
        )
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


def _version(answer: object) -> str:
    """That of the QEMU that runs the VM; another one may be installed meanwhile."""
    numbers = cast("dict[str, dict[str, int]]", answer)["qemu"]
    return f"{numbers['major']}.{numbers['minor']}.{numbers['micro']}"


def _saved_disks(answer: object, argv: list[str], plugged: dict[str, ScsiAddress]) -> list[str]:
    """The same as `disks`, of a QEMU that runs."""
    nodes = {node["node-name"]: node for node in cast("list[dict[str, Any]]", answer)}
    launched = [device for device in _values(argv, "-device") if device.startswith("virtio-blk")]
    names = [f"disk{index}" for index in range(len(launched))]
    names += [plugged_name(name) for name in sorted(plugged, key=lambda name: plugged[name])]
    return [_describe(nodes[name]["image"]["virtual-size"], nodes[name]["ro"]) for name in names]


def _size(path: Path) -> int | None:
    """As the guest sees it; None where there is no such file."""
    return -(-path.stat().st_size // SECTOR) * SECTOR if path.exists() else None


def _describe(size: int | None, read_only: bool) -> str:
    return f"{size} bytes" + (", read-only" if read_only else "")


def _kind(device: str) -> str:
    """A device without what may be another: its own name."""
    return ",".join(word for word in device.split(",") if not word.startswith(OWN_NAMES))


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

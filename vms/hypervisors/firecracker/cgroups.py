"""A control group (version 2) for each VM: nexus-vms/<ref> at the top of the host's hierarchy.

Outside of what systemd manages, since a VM outlives the service that started it.
"""

from __future__ import annotations

import errno
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from nexus_site.core.errors import Broken

ROOT = Path("/sys/fs/cgroup")
PARENT = "nexus-vms"
CONTROLLERS = ("cpu", "memory", "pids")

CPU_PERIOD = 100_000  # microseconds
#: The VMM's threads beside those of the CPUs: its API, its devices, and workers of the kernel.
THREADS = 32
#: What a VM costs beside its guest's memory: the VMM, page tables, and the cache of its disks.
#: That is reclaimed before anything is killed, but a guest writes no faster than it has room.
MIN_OVERHEAD, OVERHEAD_PART = 128 << 20, 8
GONE_SECONDS = 30.0
KILL = "cgroup.kill"  # of each group, since Linux 5.14
POLL_SECONDS = 0.002


def limits(vcpu_count: int, mem_size_mib: int, root: Path = ROOT) -> dict[str, str]:
    """What a VM may use, by the names of the kernel's files; call `make_parent` before.

    A guest is held by its number of CPUs and its memory already; these limits hold a VMM that
    its guest has taken over. So the devices' thread has a CPU of its own: were it to share those
    of the guest, a busy guest would see its disks and its network stand still.
    """
    memory = mem_size_mib << 20
    wanted = {
        "cpu.max": f"{(vcpu_count + 1) * CPU_PERIOD} {CPU_PERIOD}",
        "memory.max": str(memory + max(MIN_OVERHEAD, memory // OVERHEAD_PART)),
        "memory.swap.max": str(memory),  # all of the guest may be swapped out, and no more
        "pids.max": str(vcpu_count + THREADS),
    }
    # A kernel without swap has no limit of it; all others came with their controllers.
    return {name: value for name, value in wanted.items() if (root / PARENT / name).exists()}


def missing_controllers(root: Path = ROOT) -> list[str]:
    """Those that VMs need and this host does not have; all of them without version 2."""
    try:
        there = (root / "cgroup.controllers").read_text().split()
    except FileNotFoundError:
        there = []
    return [name for name in CONTROLLERS if name not in there]


def make_parent(root: Path = ROOT) -> None:
    """Make the group that all VMs' groups are in. Raises Broken when the kernel refuses.

    The jailer would put a VMM into the topmost group, without a word, were it not there.
    """
    parent = root / PARENT
    try:
        parent.mkdir(exist_ok=True)
        for group in (root, parent):
            _enable_controllers(group)
    except OSError as error:
        raise Broken(
            "The control group of VMs cannot be made.",
            detail=str(error),
            hint="Nexus must see the host's own control groups; in a container it does not.",
            code="cgroup-failed",
        ) from error


def remove(ref: str, root: Path = ROOT) -> None:
    """End all processes in the VM's group and remove it. It is no error when there is none.

    Raises Broken when they do not end.
    """
    group = root / PARENT / ref
    deadline = time.monotonic() + GONE_SECONDS
    while group.exists():
        try:
            group.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise Broken(
                    f"The control group of a VM cannot be removed: {error.strerror}.",
                    detail=str(group),
                    hint="A process in it hangs in the kernel; look at the host's log.",
                    code="cgroup-busy",
                ) from error
            _kill(group)
            time.sleep(POLL_SECONDS)


def _enable_controllers(group: Path) -> None:
    control = group / "cgroup.subtree_control"
    enabled = control.read_text().split()
    if lacking := [f"+{name}" for name in CONTROLLERS if name not in enabled]:
        control.write_text(" ".join(lacking))


def _kill(group: Path) -> None:
    with suppress(FileNotFoundError):
        try:
            (group / KILL).write_text("1")
        except PermissionError:  # there is none, and a file cannot be made in a group
            for pid in (group / "cgroup.procs").read_text().split():
                with suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

"""What every hypervisor driver offers, and the plain values that go in and out.

Drivers know nothing of the database or of HTTP. They are synchronous; slow calls say how
long they may take. Errors are those of `nexus_site.core.errors`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True)
class RateLimit:
    """What a device may do in each second; None stands for no limit."""

    bytes_per_second: int | None = None
    operations_per_second: int | None = None


@dataclass(frozen=True)
class Disk:
    """A raw disk image. The first disk of a VM is its root, /dev/vda in the guest.

    `name`, at most 20 characters of A-Z, a-z, 0-9, "-" and "_", is its serial number there,
    where the VMM can give it one.
    """

    name: str
    path: Path
    read_only: bool = False
    limit: RateLimit = RateLimit()


@dataclass(frozen=True)
class VmmSpec:
    """Everything a driver needs to start one VM.

    `vm_dir` is the VM's own directory; `ref`, its 13 letters, names what it needs on the host
    (control group, network); `slot`, which no other VM of this Nexus has, numbers it (vsock
    CID, user ID). `kernel` is an ELF vmlinux; `bzimage`, the same kernel as its publisher packs
    it, is for a VMM that cannot start the ELF.
    """

    vm_dir: Path
    ref: str
    slot: int
    name: str
    vcpu_count: int
    mem_size_mib: int
    kernel: Path
    initrd: Path | None
    disks: tuple[Disk, ...]
    mac: str
    kernel_args: tuple[str, ...] = ()
    bzimage: Path | None = None
    network_limit: RateLimit = RateLimit()


@dataclass(frozen=True)
class AgentSocket:
    """The Unix socket on which the guest's agent is reached.

    The VMM listens there and the host dials; or else, where the `guest_dials`, the host listens
    and the VMM, which runs as `uid` (None: as we do), brings the guest's connections.
    """

    path: Path
    guest_dials: bool = False
    uid: int | None = None


@dataclass(frozen=True)
class Handle:
    """A running VMM and its monitor.

    A process is named by its pid and its start time together, since pids come again.
    Start times are in clock ticks since the host's boot (field 22 of /proc/<pid>/stat).
    """

    vm_dir: Path
    pid: int
    started: float
    monitor_pid: int
    monitor_started: float
    accelerator: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"vm_dir": str(self.vm_dir)}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Handle:
        return cls(**values | {"vm_dir": Path(values["vm_dir"])})


@dataclass(frozen=True)
class Exit:
    """How a VMM ended, at epoch seconds `at`; all None when nobody was there to see it."""

    code: int | None
    signal: int | None
    at: float | None

    def describe(self) -> str:
        if self.signal is not None:
            return f"killed by signal {self.signal} ({_signal_name(self.signal)})"
        if self.code is not None:
            return f"exited with code {self.code}"
        return "ended, nobody saw how"


@dataclass(frozen=True)
class Problem:
    """Something a host lacks, and the exact way to put it right: in words, and to type."""

    text: str
    fix: str
    command: str = ""


@dataclass(frozen=True)
class Probe:
    """What a driver found on this host. `accelerator` is "kvm", "tcg" or, unusable, ""."""

    name: str
    usable: bool
    accelerator: str
    version: str
    problems: tuple[Problem, ...] = ()


class Hypervisor(Protocol):
    """One way to run VMs. All drivers pass the same conformance suite."""

    @property
    def name(self) -> str: ...

    def probe(self) -> Probe:
        """What works on this host. Slow once (a guest is started), then remembered."""

    def launch(self, spec: VmmSpec) -> Handle:
        """Start the VM; returns when the guest's CPUs run.

        Raises Conflict when one runs in this directory already, Invalid for a spec this
        driver cannot run, and Broken (code "launch-failed", the VMM's last words as its
        detail) when the VMM does not start; then nothing but its logs is left.
        """

    def adopt(self, vm_dir: Path) -> Handle | Exit | None:
        """What became of the VM of this directory: runs, ended, or was never started."""

    def pause(self, handle: Handle) -> None:
        """Stop the guest's CPUs. Raises Conflict when the VMM has ended."""

    def resume(self, handle: Handle) -> None:
        """Let a paused guest go on. Raises Conflict when the VMM has ended."""

    def shutdown(self, handle: Handle, timeout: float) -> Exit | None:
        """Press the power button and wait; None when the guest still runs after `timeout` s."""

    def kill(self, handle: Handle) -> Exit:
        """End the VMM at once (SIGKILL) and wait until it is gone."""

    def hotplug_problem(self, vm_dir: Path, disk_name: str = "") -> str:
        """Why disks cannot come and go in the VM that runs in this directory, for people.

        With a name: why this disk cannot go. Empty when they can. Touches no VMM.
        """

    def plug(self, handle: Handle, disk: Disk) -> None:
        """Give a running guest another disk: a SCSI disk whose serial number is its name.

        It is no error when the guest has it. Raises Retryable when the VMM does not answer.
        """

    def unplug(self, handle: Handle, disk_name: str) -> None:
        """Take away a disk that was plugged; the VMM has closed its file then.

        It is no error when the guest does not have it. Raises Retryable like `plug`.
        """

    def snapshot(self, handle: Handle, directory: Path, *, later: bool = False) -> None:
        """Save the memory and devices of a paused guest to `directory`, which is empty.

        The guest stays paused; its disks are the caller's to copy before it goes on. What does
        not need it paused is left to `complete` if that comes `later`. Raises Conflict when the
        VMM has ended or the guest runs, Broken when saving fails (nothing of it is left then).
        """

    def complete(self, directory: Path) -> None:
        """Do what `snapshot` has left for later; until then nothing goes on from `directory`.

        No matter what has become of the VM. It is no error when nothing is left to do. Raises
        Broken when it fails (nothing of the snapshot is left then).
        """

    def restore(
        self,
        spec: VmmSpec,
        directory: Path,
        *,
        disks_whole: Callable[[], object] = lambda: None,
    ) -> Handle:
        """Start a VMM whose guest goes on where `snapshot` saved it; returns when it runs.

        `spec` is that of the saved VM but for its directory, names and the places of its disks,
        which hold what they held then, at the latest when `disks_whole` has returned: it is called
        before the guest goes on. Raises as it and as `launch` do, and Invalid (code
        "snapshot-incompatible") for what this driver, VMM or host cannot load.
        """

    def balloon(self, handle: Handle, mem_size_mib: int) -> None:
        """Have the guest give back all memory but `mem_size_mib`, or take it again.

        The guest does so in its own time, as far as it can. Raises Conflict when the VMM has
        ended, Retryable when it does not answer.
        """

    def metrics(self, handle: Handle) -> dict[str, Any]:
        """The VMM's own counters under its own names; empty where it has none."""

    def has_halted(self, vm_dir: Path) -> bool:
        """Whether the guest has switched itself off though its VMM runs on; cheap."""

    def cleanup(self, vm_dir: Path) -> None:
        """Remove what an ended VMM left behind (sockets, mounts, network, control group); logs
        and exit status stay. Safe to repeat."""

    def agent_socket(self, vm_dir: Path) -> AgentSocket:
        """Where the agent of the VM that runs in this directory is reached."""


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return "unknown"

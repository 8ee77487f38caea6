"""The QEMU driver: a process per VM under its monitor, controlled over QMP."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from nexus_site.core.errors import Broken, Conflict, Invalid, Retryable
from vms.hypervisors import monitored
from vms.hypervisors.base import AgentSocket, Disk, Exit, Handle, Probe, Problem, VmmSpec
from vms.hypervisors.halted import console_says_halted
from vms.hypervisors.qemu import hotplug, memory, qmp, snapshots
from vms.hypervisors.qemu.binary import QemuBinary, find_qemu
from vms.hypervisors.qemu.command import (
    AGENT_SOCKET,
    BALLOON,
    QMP_SOCKET,
    Memory,
    command_line,
    kernel_file,
)
from vms.hypervisors.qemu.kvm import TRIAL_SECONDS, kvm_problem
from vms.hypervisors.qemu.snapshots import Snapshot

START_SECONDS = 60.0
END_SECONDS = 5.0  # for a QEMU that gives up to have ended
RUNNING = {"running"}
PAUSED = {"paused", snapshots.SAVED}


class Qemu:
    """Runs VMs with QEMU; see `vms.hypervisors.base.Hypervisor` for the contract.

    `cache_dir` keeps the answer of the KVM trial, which takes at most `trial_seconds`, starts
    `kernel` (or `bzimage`), or else the first VM's, and gives it `trial_arguments`. `tsc_khz` is
    the frequency of the host's TSC, which guests in emulation need. `accelerator` ("kvm" or
    "tcg") decides without a trial.
    """

    name = "qemu"

    def __init__(
        self,
        cache_dir: Path,
        *,
        kernel: Path | None = None,
        bzimage: Path | None = None,
        tsc_khz: int | None = None,
        accelerator: str | None = None,
        trial_seconds: float = TRIAL_SECONDS,
        trial_arguments: tuple[str, ...] = (),
    ) -> None:
        self.cache_dir = cache_dir
        self.kernel, self.bzimage = kernel, bzimage
        self.tsc_khz = tsc_khz
        self.accelerator = accelerator
        self.trial_seconds, self.trial_arguments = trial_seconds, trial_arguments
        self._trial = threading.Lock()

    @cached_property
    def binary(self) -> QemuBinary:
        """The QEMU in use. Raises Broken, with the command that installs it, if there is none."""
        return find_qemu()

    def probe(self) -> Probe:
        try:
            qemu = self.binary
        except Broken as error:
            text = f"{error.text} {error.detail}".strip()
            return Probe(self.name, False, "", "", (Problem(text, error.hint),))
        accelerator, problems = self._accelerator(self.kernel, self.bzimage)
        return Probe(self.name, True, accelerator, qemu.version, problems)

    def launch(self, spec: VmmSpec) -> Handle:
        accelerator = self._accelerator_for(spec)
        self._require_clock(accelerator)
        with memory.new_memory(spec.mem_size_mib) as path:
            argv = command_line(
                spec, self.binary, accelerator, self.tsc_khz, Memory(path, shared=True)
            )
            return self._start(spec.vm_dir, argv, accelerator)

    def snapshot(self, handle: Handle, directory: Path, *, later: bool = False) -> None:
        monitored.require_running(handle)
        snapshots.save(handle, directory, self.tsc_khz)

    def complete(self, directory: Path) -> None:
        """`snapshot` leaves nothing."""

    def restore(
        self,
        spec: VmmSpec,
        directory: Path,
        *,
        disks_whole: Callable[[], object] = lambda: None,
    ) -> Handle:
        saved = snapshots.read(directory)
        accelerator = self._accelerator_for(spec)
        plugged = saved.addresses(spec.disks)
        with _memory_for(saved, spec) as backing:
            argv = command_line(spec, self.binary, accelerator, self.tsc_khz, backing, plugged)
            saved.require_same(
                snapshots.machine(argv, self.binary.version, accelerator, self.tsc_khz)
                | {"disks": snapshots.disks(spec.disks, plugged)}
            )

            return self._start(spec.vm_dir, argv, accelerator, saved, disks_whole)

    def _start(
        self,
        vm_dir: Path,
        argv: list[str],
        accelerator: str,
        saved: Snapshot | None = None,
        disks_whole: Callable[[], object] = lambda: None,
    ) -> Handle:
        """Start QEMU, and return when the guest runs: from its start, or from where it was."""
        handle = monitored.start(vm_dir, argv, self.binary.environment, accelerator)
        try:
            if saved is None:
                _talk(handle, lambda: qmp.wait_for_status(vm_dir, "running", START_SECONDS))
            else:
                disks_whole()  # QEMU comes up meanwhile
                _talk(handle, lambda: saved.load(vm_dir))
        except BaseException:
            monitored.kill(handle)
            monitored.forget(vm_dir)
            raise
        return handle

    def _require_clock(self, accelerator: str) -> None:
        if accelerator == "tcg" and self.binary.machine == "microvm" and self.tsc_khz is None:
            raise Broken(
                "The frequency of the host's time stamp counter is unknown.",
                detail="Without it an emulated guest cannot tell the time and hangs.",
                hint="Build the guest agent, which measures it: ./nexus up",
                code="tsc-unknown",
            )

    def adopt(self, vm_dir: Path) -> Handle | Exit | None:
        return monitored.adopt(vm_dir)

    def pause(self, handle: Handle) -> None:
        self._control(handle, "stop", PAUSED)

    def resume(self, handle: Handle) -> None:
        self._control(handle, "cont", RUNNING)

    def shutdown(self, handle: Handle, timeout: float) -> Exit | None:
        try:
            # A paused guest would not see the button.
            qmp.ask(handle.vm_dir, "cont", "system_powerdown")
        except Retryable:
            return monitored.exit_status(handle)
        return monitored.wait(handle, timeout)

    def kill(self, handle: Handle) -> Exit:
        return monitored.kill(handle)

    def hotplug_problem(self, vm_dir: Path, disk_name: str = "") -> str:
        return hotplug.problem(vm_dir, disk_name)

    def plug(self, handle: Handle, disk: Disk) -> None:
        monitored.require_running(handle)
        hotplug.plug(handle.vm_dir, disk)

    def unplug(self, handle: Handle, disk_name: str) -> None:
        monitored.require_running(handle)
        hotplug.unplug(handle.vm_dir, disk_name)

    def balloon(self, handle: Handle, mem_size_mib: int) -> None:
        monitored.require_running(handle)
        if not _has_balloon(handle.vm_dir):
            raise Invalid(
                "This VM has no balloon.",
                detail=f"QEMU {self.binary.version} lets a guest's balloon damage the saved memory "
                "that other guests share; 8.2 does not.",
                hint="Update QEMU and start the VM again, or run it on Firecracker.",
                code="balloon-unsupported",
            )
        qmp.ask(handle.vm_dir, ("balloon", {"value": mem_size_mib * 2**20}))

    def metrics(self, handle: Handle) -> dict[str, Any]:
        """The counters of each disk, by QEMU's name for it."""
        monitored.require_running(handle)
        (answer,) = qmp.ask(handle.vm_dir, "query-blockstats")
        disks = cast("list[dict[str, Any]]", answer)
        return {disk["node-name"]: disk["stats"] for disk in disks if "node-name" in disk}

    def has_halted(self, vm_dir: Path) -> bool:
        return console_says_halted(vm_dir)

    def cleanup(self, vm_dir: Path) -> None:
        monitored.cleanup(vm_dir)

    def agent_socket(self, vm_dir: Path) -> AgentSocket:
        return AgentSocket(vm_dir / AGENT_SOCKET)

    def _control(self, handle: Handle, command: str, expected: set[str]) -> None:
        monitored.require_running(handle)
        qmp.ask(handle.vm_dir, command)
        now = qmp.status(handle.vm_dir)
        if now not in expected:
            raise Conflict(f"The VM is {now}; it could not {command}.", code="vmm-state")

    def _accelerator_for(self, spec: VmmSpec) -> str:
        kernel, bzimage = self.kernel or spec.kernel, self.bzimage or spec.bzimage
        return self._accelerator(kernel, bzimage)[0]

    def _accelerator(
        self, kernel: Path | None, bzimage: Path | None
    ) -> tuple[str, tuple[Problem, ...]]:
        """The best accelerator that works, and what keeps a better one from working."""
        if self.accelerator is not None:
            return self.accelerator, ()
        bootable = kernel and kernel_file(self.binary, kernel, bzimage)
        with self._trial:
            problem = kvm_problem(
                self.binary, bootable, self.cache_dir, self.trial_seconds, self.trial_arguments
            )
        return ("tcg", (problem,)) if problem else ("kvm", ())


@contextmanager
def _memory_for(saved: Snapshot, spec: VmmSpec) -> Iterator[Memory]:
    """A copy on write of the saved memory, or new memory for what comes with the state."""
    if saved.memory is not None:
        yield Memory(str(saved.memory), shared=False)
    else:
        with memory.new_memory(spec.mem_size_mib) as path:
            yield Memory(path, shared=True)


def _talk(handle: Handle, conversation: Callable[[], None]) -> None:
    """Have this conversation as soon as QEMU listens. Raises Broken when it fails."""
    deadline = time.monotonic() + START_SECONDS
    socket = handle.vm_dir / QMP_SOCKET
    while not socket.exists() and time.monotonic() < deadline:
        _require_alive(handle)
        time.sleep(monitored.POLL_SECONDS)
    while True:
        try:
            return conversation()
        except Retryable as error:
            late = time.monotonic() > deadline
            if error.code != qmp.NOBODY or late:
                if monitored.wait(handle, END_SECONDS) is not None:
                    _require_alive(handle)
                when = f" within {START_SECONDS:.0f} s" if late else ""
                text = f"QEMU did not start the guest{when}."
                raise monitored.launch_failed(handle.vm_dir, text, error.detail) from error
        _require_alive(handle)
        time.sleep(monitored.POLL_SECONDS)


def _require_alive(handle: Handle) -> None:
    ended = monitored.exit_status(handle)
    if ended is not None:
        raise monitored.launch_failed(
            handle.vm_dir, f"QEMU {ended.describe()} before the guest ran."
        )


def _has_balloon(vm_dir: Path) -> bool:
    return any(f"id={BALLOON}" in word.split(",") for word in monitored.launched_with(vm_dir))

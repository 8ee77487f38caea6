"""The QEMU driver: a process per VM under its monitor, controlled over QMP."""

from __future__ import annotations

import threading
import time
from functools import cached_property
from pathlib import Path

from nexus_site.core.errors import Broken, Conflict, Retryable
from vms.hypervisors import monitored
from vms.hypervisors.base import AgentSocket, Disk, Exit, Handle, Probe, Problem, VmmSpec
from vms.hypervisors.qemu import hotplug, qmp
from vms.hypervisors.qemu.binary import QemuBinary, find_qemu
from vms.hypervisors.qemu.command import AGENT_SOCKET, QMP_SOCKET, command_line, kernel_file
from vms.hypervisors.qemu.kvm import kvm_problem

RUNNING_SECONDS = 60.0


class Qemu:
    """Runs VMs with QEMU; see `vms.hypervisors.base.Hypervisor` for the contract.

    `cache_dir` keeps the answer of the KVM trial; `kernel` (and `bzimage`) is what the trial
    starts, else the first VM's kernel. `tsc_khz` is the frequency of the host's TSC, which
    guests in emulation need. `accelerator` ("kvm" or "tcg") decides without a trial.
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
    ) -> None:
        self.cache_dir = cache_dir
        self.kernel, self.bzimage = kernel, bzimage
        self.tsc_khz = tsc_khz
        self.accelerator = accelerator
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
        accelerator, _ = self._accelerator(self.kernel or spec.kernel, self.bzimage or spec.bzimage)
        self._require_clock(accelerator)
        argv = command_line(spec, self.binary, accelerator, self.tsc_khz)
        handle = monitored.start(spec.vm_dir, argv, self.binary.environment, accelerator)
        try:
            _wait_until_running(handle)
        except BaseException:
            monitored.kill(handle)
            monitored.forget(spec.vm_dir)
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
        self._control(handle, "stop", "paused")

    def resume(self, handle: Handle) -> None:
        self._control(handle, "cont", "running")

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
        self._require_running(handle)
        hotplug.plug(handle.vm_dir, disk)

    def unplug(self, handle: Handle, disk_name: str) -> None:
        self._require_running(handle)
        hotplug.unplug(handle.vm_dir, disk_name)

    def cleanup(self, vm_dir: Path) -> None:
        monitored.cleanup(vm_dir)

    def agent_socket(self, vm_dir: Path) -> AgentSocket:
        return AgentSocket(vm_dir / AGENT_SOCKET)

    def _control(self, handle: Handle, command: str, expected: str) -> None:
        self._require_running(handle)
        qmp.ask(handle.vm_dir, command)
        now = qmp.status(handle.vm_dir)
        if now != expected:
            raise Conflict(f"The VM is {now}, not {expected}.", code="vmm-state")

    def _require_running(self, handle: Handle) -> None:
        if not monitored.is_running(handle):
            raise Conflict("The VM does not run any more.", code="vmm-ended")

    def _accelerator(
        self, kernel: Path | None, bzimage: Path | None
    ) -> tuple[str, tuple[Problem, ...]]:
        """The best accelerator that works, and what keeps a better one from working."""
        if self.accelerator is not None:
            return self.accelerator, ()
        bootable = kernel and kernel_file(self.binary, kernel, bzimage)
        with self._trial:
            problem = kvm_problem(self.binary, bootable, self.cache_dir)
        return ("tcg", (problem,)) if problem else ("kvm", ())


def _wait_until_running(handle: Handle) -> None:
    """Return when QEMU says that the guest's CPUs run. Raises Broken when that fails."""
    deadline = time.monotonic() + RUNNING_SECONDS
    socket = handle.vm_dir / QMP_SOCKET
    while time.monotonic() < deadline:
        ended = monitored.exit_status(handle)
        if ended is not None:
            raise monitored.launch_failed(
                handle.vm_dir, f"QEMU {ended.describe()} before the guest ran."
            )
        try:
            if socket.exists() and qmp.status(handle.vm_dir) == "running":
                return
        except Retryable:
            pass  # not listening yet, or just ended: the next round tells
        time.sleep(monitored.POLL_SECONDS)
    raise monitored.launch_failed(
        handle.vm_dir, f"QEMU did not start the guest within {RUNNING_SECONDS:.0f} s."
    )

"""The Firecracker driver: a process per VM under its monitor, controlled over its API socket."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nexus_site.core.errors import Broken, Conflict, NexusError, Retryable
from vms.hypervisors import monitored
from vms.hypervisors.base import AgentSocket, Disk, Exit, Handle, Probe, Problem, VmmSpec
from vms.hypervisors.firecracker import api, bases, checks, hostile, locks, metrics, snapshots
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.firecracker.binary import FirecrackerBinary
from vms.hypervisors.firecracker.configuration import AGENT_PORT, VSOCK, Lent, requests
from vms.hypervisors.firecracker.jail import jail_problem
from vms.hypervisors.firecracker.network import HostNetwork
from vms.hypervisors.firecracker.network_check import network_problem
from vms.hypervisors.firecracker.place import LENT, Place
from vms.hypervisors.firecracker.premises import Premises
from vms.hypervisors.firecracker.trial import kvm_problem
from vms.hypervisors.halted import console_says_halted

START_SECONDS = 60.0
START = Request("PUT", "/actions", {"action_type": "InstanceStart"})
PAUSE = Request("PATCH", "/vm", {"state": "Paused"})
RESUME = Request("PATCH", "/vm", {"state": "Resumed"})
CTRL_ALT_DEL = Request("PUT", "/actions", {"action_type": "SendCtrlAltDel"})
FLUSH_METRICS = Request("PUT", "/actions", {"action_type": "FlushMetrics"})
DOWNLOAD = "nexusctl firecracker download"

Configure = Callable[[Place, str | None], list[Request]]


class Firecracker:
    """Runs VMs with Firecracker; see `vms.hypervisors.base.Hypervisor` for the contract.

    `find_binary` gives the release for the next VM, None when none is installed. `jailed` is
    whether VMMs run in a jail, and `network` whether jailed VMs have one, of `networks`; None:
    where this host can do it. `cache_dir` keeps the answer of the KVM trial, which takes at most
    `trial_seconds`, starts `kernel`, or else the first VM's, and gives it `trial_arguments`.
    """

    name = "firecracker"

    def __init__(
        self,
        cache_dir: Path,
        find_binary: Callable[[], FirecrackerBinary | None],
        *,
        jailed: bool | None = None,
        trial_seconds: float = 10,
        trial_arguments: tuple[str, ...] = (),
        network: bool | None = None,
        kernel: Path | None = None,
        networks: HostNetwork | None = None,
    ) -> None:
        self.cache_dir = cache_dir
        self.find_binary = find_binary
        self.jailed, self.network = jailed, network
        self.networks = networks or HostNetwork()
        self.trial_seconds, self.trial_arguments = trial_seconds, trial_arguments
        self.kernel = kernel
        self._trial = threading.Lock()
        self._networks_work = False

    # What there is

    def probe(self) -> Probe:
        try:
            binary = self._binary()
        except Broken as error:
            problem = Problem(error.text, error.hint, DOWNLOAD)
            return Probe(self.name, False, "", "", (problem,))
        kvm = self._kvm_problem(binary, self.kernel)
        problems = [kvm, *self._confinement_problems(binary)]
        return Probe(
            self.name,
            usable=kvm is None,
            accelerator="" if kvm else "kvm",
            version=binary.version,
            problems=tuple(problem for problem in problems if problem),
        )

    def adopt(self, vm_dir: Path) -> Handle | Exit | None:
        return monitored.adopt(vm_dir)

    def agent_socket(self, vm_dir: Path) -> AgentSocket:
        place = self._premises(vm_dir).place
        return AgentSocket(place.root / f"{VSOCK}_{AGENT_PORT}", guest_dials=True, uid=place.uid)

    def metrics(self, handle: Handle) -> dict[str, Any]:
        return metrics.read(handle.vm_dir, lambda: self._ask(handle, FLUSH_METRICS))

    def has_halted(self, vm_dir: Path) -> bool:
        return console_says_halted(vm_dir)

    # Start

    def launch(self, spec: VmmSpec) -> Handle:
        checks.check_files(spec)
        binary = self._usable_binary(spec.kernel)

        def configure(place: Place, tap: str | None) -> list[Request]:
            return [*requests(spec, _lend(place, spec, tap)), START]

        return self._start(spec, binary, configure)

    def restore(
        self,
        spec: VmmSpec,
        directory: Path,
        *,
        disks_whole: Callable[[], object] = lambda: None,
    ) -> Handle:
        disks_whole()
        checks.check_disks(spec)
        binary = self._usable_binary(spec.kernel)
        networked = self._is_networked(binary)
        snapshots.check(directory, spec, binary.version, networked=networked)

        def load(place: Place, tap: str | None) -> list[Request]:
            _lend_disks(place, spec)
            memory = place.lend("memory", directory / snapshots.MEMORY)
            state = place.lend("state", directory / snapshots.STATE)
            return [snapshots.load_request(memory, state)]

        handle = self._start(spec, binary, load)
        bases.remember(handle, directory / snapshots.MEMORY)
        return handle

    def _start(self, spec: VmmSpec, binary: FirecrackerBinary, configure: Configure) -> Handle:
        """Start a VMM that makes the calls of `configure`; nothing is left if one fails."""
        monitored.require_none(spec.vm_dir)
        with locks.locked(spec.disks) as files:
            self._premises(spec.vm_dir).cleanup()
            network = self.networks if self._is_networked(binary) else None
            premises = Premises.reserve(spec, network, jailed=self._is_jailed(binary))
            try:
                plan = premises.prepare(spec)
                calls = configure(premises.place, plan.tap if plan else None)
                arguments, fifos = _logging(premises.place)
                netns = plan.netns if plan else None
                argv = premises.place.command(binary, arguments, spec, netns)
                handle = monitored.start(spec.vm_dir, argv, {}, "kvm", fifos, files)
                _wait_for_api(handle, premises.place.root)
                _configure(handle, premises.place.root, calls)
            except BaseException:
                running = monitored.adopt(spec.vm_dir)
                if isinstance(running, Handle):
                    monitored.kill(running)
                monitored.forget(spec.vm_dir)
                premises.cleanup()
                raise
            return handle

    def _usable_binary(self, kernel: Path) -> FirecrackerBinary:
        """The release to start a VM with. Raises Broken when none can on this host."""
        binary = self._binary()
        if problem := self._kvm_problem(binary, self.kernel or kernel):
            hint = f"{problem.fix} {problem.command}".strip()
            raise Broken(problem.text, hint=hint, code="kvm-unusable")
        return binary

    def _binary(self) -> FirecrackerBinary:
        binary = self.find_binary()
        if binary is None:
            raise Broken(
                "No Firecracker release is installed.",
                hint=f"Download one: {DOWNLOAD}",
                code="firecracker-missing",
            )
        checks.check_version(binary)
        return binary

    def _kvm_problem(self, binary: FirecrackerBinary, kernel: Path | None) -> Problem | None:
        with self._trial:
            return kvm_problem(
                binary, kernel, self.cache_dir, self.trial_seconds, self.trial_arguments
            )

    def _confinement_problems(self, binary: FirecrackerBinary) -> list[Problem | None]:
        """Why VMs are not jailed, or have no network."""
        jail = jail_problem(binary, self.cache_dir)
        if jail is not None:
            return [jail, Problem("VMs without a jail have no network.", jail.fix, jail.command)]
        return [self._network_problem()]

    def _network_problem(self) -> Problem | None:
        """Looked for until there is none: it takes making a network."""
        if self._networks_work:
            return None
        problem = network_problem(self.networks.pool)
        self._networks_work = problem is None
        return problem

    def _is_jailed(self, binary: FirecrackerBinary) -> bool:
        if self.jailed is None:
            return jail_problem(binary, self.cache_dir) is None
        return self.jailed

    def _is_networked(self, binary: FirecrackerBinary) -> bool:
        if self.network is None:
            return self._is_jailed(binary) and self._network_problem() is None
        return self.network

    def _premises(self, vm_dir: Path) -> Premises:
        return Premises.of(vm_dir, self.networks)

    # Control

    def pause(self, handle: Handle) -> None:
        self._ask(handle, PAUSE)

    def resume(self, handle: Handle) -> None:
        self._ask(handle, RESUME)

    def snapshot(self, handle: Handle, directory: Path, *, later: bool = False) -> None:
        monitored.require_running(handle)
        snapshots.save(self._premises(handle.vm_dir).place, handle, directory, later=later)

    def complete(self, directory: Path) -> None:
        snapshots.complete(directory)

    def balloon(self, handle: Handle, mem_size_mib: int) -> None:
        (machine,) = self._ask(handle, Request("GET", "/machine-config"))
        with api.understood():
            amount = max(0, int(machine["mem_size_mib"]) - mem_size_mib)
        bases.forget(handle.vm_dir)  # what the guest gives back is not among its changes
        self._ask(handle, Request("PATCH", "/balloon", {"amount_mib": amount}))

    def _ask(self, handle: Handle, *calls: Request) -> list[Any]:
        monitored.require_running(handle)
        return api.ask(self._premises(handle.vm_dir).place.root, *calls)

    # End

    def shutdown(self, handle: Handle, timeout: float) -> Exit | None:
        try:
            # A paused guest would not see the keys.
            self._ask(handle, RESUME, CTRL_ALT_DEL)
        except (Retryable, Conflict):
            return monitored.exit_status(handle)
        return monitored.wait(handle, timeout)

    def kill(self, handle: Handle) -> Exit:
        return monitored.kill(handle)

    def cleanup(self, vm_dir: Path) -> None:
        monitored.cleanup(vm_dir)
        self._premises(vm_dir).cleanup()

    # Disks that come and go

    def hotplug_problem(self, vm_dir: Path, disk_name: str = "") -> str:
        return (
            "Firecracker takes no disks while a VM runs: stop the VM first, or let it run on QEMU."
        )

    def plug(self, handle: Handle, disk: Disk) -> None:
        raise Conflict(self.hotplug_problem(handle.vm_dir), code="no-hotplug")

    def unplug(self, handle: Handle, disk_name: str) -> None:
        raise Conflict(self.hotplug_problem(handle.vm_dir), code="no-hotplug")


def _lend(place: Place, spec: VmmSpec, tap: str | None) -> Lent:
    return Lent(
        kernel=place.lend("kernel", spec.kernel),
        initrd=place.lend("initrd", spec.initrd) if spec.initrd else None,
        disks=_lend_disks(place, spec),
        tap=tap,
    )


def _lend_disks(place: Place, spec: VmmSpec) -> tuple[str, ...]:
    """By their order and not by name: a restored VM's disks may have others."""
    return tuple(
        place.lend(f"disk{index}", disk.path, writable=not disk.read_only)
        for index, disk in enumerate(spec.disks)
    )


def _logging(place: Place) -> tuple[list[str], dict[Path, str]]:
    """The VMM's arguments, and its FIFOs with the log of each."""
    arguments = ["--api-sock", api.SOCKET, "--level", "Info"]
    fifos = {}
    for option, name, log in (
        ("--log-path", "log.fifo", "vmm.log"),
        ("--metrics-path", "metrics.fifo", metrics.LOG),
    ):
        hostile.make_fifo(place.root / LENT, name, place.uid)
        arguments += [option, f"{LENT}/{name}"]
        fifos[place.root / LENT / name] = log
    return arguments, fifos


def _wait_for_api(handle: Handle, root: Path) -> None:
    """Return when the VMM answers. Raises Broken when it does not, or ends."""
    deadline = time.monotonic() + START_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        _require_alive(handle)
        try:
            api.ask(root, Request("GET", "/version"), timeout=left)
            return
        except Retryable:
            time.sleep(monitored.POLL_SECONDS)  # not listening yet, or just ended
    raise monitored.launch_failed(
        handle.vm_dir, f"Firecracker did not answer within {START_SECONDS:.0f} s."
    )


def _configure(handle: Handle, root: Path, calls: list[Request]) -> None:
    try:
        api.ask(root, *calls)
    except NexusError as error:
        if isinstance(error, Retryable):
            _require_alive(handle)
        text = "Firecracker did not start the guest."
        raise monitored.launch_failed(handle.vm_dir, text, error.detail) from error


def _require_alive(handle: Handle) -> None:
    ended = monitored.exit_status(handle)
    if ended is not None:
        text = f"Firecracker {ended.describe()} before the guest ran."
        raise monitored.launch_failed(handle.vm_dir, text)

"""A driver whose guests are a few words in this process, and a supervisor that takes notes."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from guest_agent.connection import AgentConnection
from nexus_site.core.errors import Broken, Conflict, Invalid
from tests.vms.real_drives import Killed
from vms import checkpoints, lifecycle, live_drives, outcomes, saved_memory, supervision, suspending
from vms.hypervisors.base import Exit, Handle, VmmSpec
from vms.models import VM
from vms.paths import vm_dir

USERS = (checkpoints, lifecycle, live_drives, outcomes, saved_memory, suspending)  # of drivers
MEMORY = "memory"


class FakeVmm:
    """Driver and supervisor; ``done`` is what they were asked, in order.

    ``guests``: what runs, by directory: "running", "paused", or "saved" once it has been saved in
    this pause. ``remembers``: what is in their memories.
    """

    name = "qemu"

    def __init__(self) -> None:
        self.done: list[str] = []
        self.guests: dict[Path, str] = {}
        self.remembers: dict[Path, str] = {}
        self.exits: dict[Path, Exit] = {}
        self.full = False
        self.dies_at = ""  # its worker does, as by SIGKILL, when this is asked
        self.dead = False
        self.freezes = True
        self.quiet = math.inf  # seconds since somebody used an agent

    def run(self, vm: VM, remembers: str = "a counter") -> None:
        """The VM has a VMM."""
        vm_dir(vm).mkdir(parents=True, exist_ok=True)
        self.guests[vm_dir(vm)], self.remembers[vm_dir(vm)] = "running", remembers

    def how(self, vm: VM) -> str:
        return self.guests.get(vm_dir(vm), "")

    def new_worker(self) -> None:
        """The next one knows nothing of what the dead one held."""
        self.dead, self.dies_at = False, ""
        live_drives._held.clear()

    # The driver

    def adopt(self, directory: Path) -> Handle | Exit | None:
        if directory in self.guests:
            return Handle(directory, 1, 1, 2, 2, "tcg")
        return self.exits.get(directory)

    def pause(self, handle: Handle) -> None:
        self._note("pause")
        self._require(handle)
        if self.guests[handle.vm_dir] == "running":
            self.guests[handle.vm_dir] = "paused"

    def resume(self, handle: Handle) -> None:
        self._note("resume")
        self._require(handle)
        self.guests[handle.vm_dir] = "running"

    def snapshot(self, handle: Handle, directory: Path, *, later: bool = False) -> None:
        self._note("save")
        self._require(handle)
        assert not list(directory.iterdir()), "it is given an empty directory"
        if self.guests[handle.vm_dir] != "paused":
            raise Conflict("It has been saved, or runs.", code="vmm-state")
        if self.full:
            raise Broken("There is not enough space on the disk.", code="disk-full")
        (directory / MEMORY).write_text(self.remembers[handle.vm_dir])
        self.guests[handle.vm_dir] = "saved"

    def complete(self, directory: Path) -> None:
        self._note("complete")

    def restore(
        self, spec: VmmSpec, directory: Path, *, disks_whole: Callable[[], object] = lambda: None
    ) -> Handle:
        disks_whole()
        self._note("restore")
        if not (directory / MEMORY).exists():
            raise Invalid("It is not as it was saved.", code="snapshot-incompatible")
        self.guests[spec.vm_dir] = "running"
        self.remembers[spec.vm_dir] = (directory / MEMORY).read_text()
        return Handle(spec.vm_dir, 1, 1, 2, 2, "tcg")

    def launch(self, spec: VmmSpec) -> Handle:
        self._note("launch")
        self.guests[spec.vm_dir], self.remembers[spec.vm_dir] = "running", "nothing"
        return Handle(spec.vm_dir, 1, 1, 2, 2, "tcg")

    def kill(self, handle: Handle) -> Exit:
        self._note("kill")
        self.guests.pop(handle.vm_dir, None)
        self.exits[handle.vm_dir] = Exit(None, 9, 1.0)
        return self.exits[handle.vm_dir]

    def shutdown(self, handle: Handle, timeout: float) -> Exit | None:
        return self.kill(handle)

    def metrics(self, _: Handle) -> dict[str, Any]:
        return {}

    def cleanup(self, _: Path) -> None:
        pass

    def _note(self, asked: str) -> None:
        if self.dead or asked == self.dies_at:
            self.dead = True
            raise Killed
        self.done.append(asked)

    def _require(self, handle: Handle) -> None:
        if handle.vm_dir not in self.guests:
            raise Conflict("The VM does not run any more.", code="vmm-gone")

    # The supervisor

    def freeze(self, _: VM) -> bool:
        self._note("freeze")
        return self.freezes

    def thaw(self, _: VM) -> bool:
        self._note("thaw")
        return True

    def ask_to_shut_down(self, _: VM) -> bool:
        return False

    def quiet_seconds(self, _: VM) -> float:
        return self.quiet

    def with_agent(self, vm: VM, call: Callable[[AgentConnection], Awaitable[object]]) -> object:
        raise supervision.no_agent(vm)

    def wake(self) -> None:
        pass


def install(monkeypatch: pytest.MonkeyPatch, vmm: FakeVmm | None = None) -> FakeVmm:
    """A new one, or ``vmm``, for every module that asks for a driver."""
    vmm = vmm or FakeVmm()
    for module in USERS:
        monkeypatch.setattr(module, "driver_of", lambda vm: vmm)
    monkeypatch.setattr(lifecycle, "driver_for", lambda name: vmm)
    monkeypatch.setattr(supervision, "_supervisor", vmm)
    return vmm

"""Checkpoints: memory and drives of one moment, or nothing at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from drives.models import Snapshot
from nexus_site.core.errors import Conflict
from nexus_site.core.operations import decode
from tests.factories import make_vm
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import Killed, carry_out, die_once, done, make_running, resume
from vms import saved_memory, services
from vms.models import VM, VMSnapshot
from vms.paths import checkpoint_memory
from vms.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture
def vmm(vm: VM, monkeypatch: pytest.MonkeyPatch) -> FakeVmm:
    vmm = install(monkeypatch)
    vmm.run(make_running(vm))
    return vmm


def checkpointed(vm: VM, name: str = "") -> VMSnapshot:
    operation = done(services.checkpoint_vm(vm, name=name))
    vm.refresh_from_db()
    return VMSnapshot.objects.get(pk=decode(operation.params["vm_snapshot"]))


def assert_nothing_is_left(directory: Path) -> None:
    assert not VMSnapshot.objects.exists()
    assert not Snapshot.objects.exists()
    assert not directory.exists()
    assert not saved_memory.unfinished(directory).exists()


def test_memory_and_drives_are_of_one_pause_and_the_vm_goes_on(vm: VM, vmm: FakeVmm) -> None:
    checkpoint = checkpointed(vm, "monday")
    assert vmm.done == ["freeze", "thaw", "pause", "save", "resume", "complete"]
    assert vmm.how(vm) == "running"
    assert (vm.state, vm.head) == ("ready", checkpoint)
    assert checkpoint.state == VMSnapshot.State.READY
    assert checkpoint.with_memory
    assert checkpoint.held_ms is not None
    assert checkpoint.memory_bytes
    assert checkpoint.memory_of["accelerator"] == "tcg"
    assert (checkpoint_memory(checkpoint) / "memory").read_text() == "a counter"
    assert checkpoint.drives.count() == 2


def test_its_file_systems_are_not_frozen_for_whoever_goes_on_from_it(vm: VM, vmm: FakeVmm) -> None:
    assert checkpointed(vm).consistency == "crash"
    assert vmm.done.index("thaw") < vmm.done.index("pause")


def test_without_room_nothing_is_left_and_the_answer_says_so(vm: VM, vmm: FakeVmm) -> None:
    vmm.full = True
    operation = services.checkpoint_vm(vm)
    directory = checkpoint_memory(VMSnapshot.objects.get())
    carry_out(operation)
    assert (operation.state, operation.error["code"]) == ("failed", "disk-full")
    assert vmm.how(vm) == "running"
    vm.refresh_from_db()
    assert vm.state == State.READY
    assert_nothing_is_left(directory)


@pytest.mark.parametrize("place", ["pause", "save", "copy_snapshots", "resume", "complete"])
def test_a_killed_worker_leaves_it_to_the_next(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    vmm.dies_at = place
    if place == "copy_snapshots":
        die_once(monkeypatch, place)
        vmm.dies_at = "resume"
    operation = services.checkpoint_vm(vm)
    directory = checkpoint_memory(VMSnapshot.objects.get())
    with pytest.raises(Killed):
        carry_out(operation)
    left = saved_memory.unfinished(directory)
    left.mkdir(parents=True, exist_ok=True)
    (left / "memory").write_text("half of")
    vmm.new_worker()
    resume(operation)
    assert operation.state == "succeeded", operation.error
    assert (directory / "memory").read_text() == "a counter"
    assert not left.exists()
    assert vmm.how(vm) == "running"


def test_deleting_it_removes_its_memory(vm: VM, vmm: FakeVmm) -> None:
    checkpoint = checkpointed(vm)
    directory = checkpoint_memory(checkpoint)
    done(services.delete_vm_snapshot(checkpoint))
    assert_nothing_is_left(directory)


@pytest.mark.parametrize("state", sorted(set(State) - {"ready", "paused", "suspended"}))
def test_only_what_has_a_memory_in_order_can_be_kept(state: State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.checkpoint_vm(make_vm(state=state))

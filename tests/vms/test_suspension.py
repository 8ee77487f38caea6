"""VMs that stand still: paused in memory, or suspended to the disk, and never in between."""

from __future__ import annotations

import math
import shutil
from types import SimpleNamespace

import pytest

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.operations import rehearse
from tests.factories import make_drive, make_vm
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import Killed, carry_out, done, drives_of, make_running, resume, taken
from vms import live_drives, resuming, saved_memory, services, warm
from vms.models import VM
from vms.paths import suspended_memory, vm_dir
from vms.states import AT_REST, Desired, State
from vms.transitions import move

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture
def vmm(vm: VM, monkeypatch: pytest.MonkeyPatch) -> FakeVmm:
    vmm = install(monkeypatch)
    vmm.run(make_running(vm))
    services.wish(vm, Desired.RUNNING)
    return vmm


def again(vm: VM) -> VM:
    vm.refresh_from_db()
    return vm


def paused(vm: VM) -> VM:
    done(services.pause_vm(vm))
    return again(vm)


def suspended(vm: VM) -> VM:
    done(services.suspend_vm(vm))
    return again(vm)


# Paused


def test_a_paused_vm_stands_still_until_it_is_unpaused(vm: VM, vmm: FakeVmm) -> None:
    assert (paused(vm).state, vm.desired_state) == ("paused", "paused")
    assert vmm.how(vm) == "paused"
    assert live_drives.is_held(vm), "nobody waits for its agent"
    done(services.unpause_vm(vm))
    assert (again(vm).state, vm.desired_state) == ("ready", "running")
    assert vmm.how(vm) == "running"
    assert not live_drives.is_held(vm)


def test_the_supervisor_lets_it_be(vm: VM, vmm: FakeVmm) -> None:
    handle = live_drives.running(paused(vm))
    live_drives.let_go(vm, handle)
    assert (vmm.how(vm), again(vm).state) == ("paused", "paused")


def test_a_snapshot_of_it_leaves_it_paused(vm: VM, vmm: FakeVmm) -> None:
    snapshot = taken(paused(vm))
    assert (snapshot.held_ms, again(vm).state, vmm.how(vm)) == (None, "paused", "paused")
    done(services.checkpoint_vm(vm))
    done(services.checkpoint_vm(vm))
    assert (again(vm).state, vmm.how(vm)) == ("paused", "saved"), "saved twice, and still paused"


def test_who_asks_its_agent_learns_how_to_let_it_go_on(vm: VM, vmm: FakeVmm) -> None:
    with pytest.raises(Conflict, match="is paused") as caught:
        services.ready_vm(paused(vm).ref)
    assert "nexusctl vm unpause web" in caught.value.hint


def test_it_can_be_stopped(vm: VM, vmm: FakeVmm) -> None:
    paused(vm)
    vmm.done.clear()
    done(services.stop_vm(vm))
    assert vmm.done[0] == "resume", "a guest that stands still shuts nothing down"
    assert (again(vm).state, vm.desired_state) == ("stopped", "stopped")


@pytest.mark.parametrize("state", sorted(set(State) - {State.READY}))
def test_only_a_ready_vm_can_be_paused(state: State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.pause_vm(make_vm(state=state))


def test_only_what_somebody_paused_can_be_unpaused(vm: VM, vmm: FakeVmm) -> None:
    move(vm, State.PAUSED, "held still")
    with pytest.raises(Conflict, match="nobody has paused it"):
        services.unpause_vm(vm)


def test_a_vmm_that_cannot_be_paused_goes_on(vm: VM, vmm: FakeVmm) -> None:
    vmm.guests.clear()
    operation = carry_out(services.pause_vm(vm))
    assert (operation.state, again(vm).desired_state) == ("failed", "running")
    assert not live_drives.is_held(vm)


# Suspended


def test_a_suspended_vm_has_its_memory_on_the_disk_and_no_vmm(vm: VM, vmm: FakeVmm) -> None:
    assert (suspended(vm).state, vm.desired_state) == ("suspended", "suspended")
    assert vmm.done == ["freeze", "thaw", "pause", "save", "kill"]
    assert vmm.how(vm) == ""
    assert (suspended_memory(vm) / "memory").read_text() == "a counter"
    assert vm.saved_memory["reason"] == "request"
    assert vm.saved_memory["bytes"] > 0
    assert [row.to_state for row in vm.history.all()][1:] == ["paused", "suspended"]


def test_a_paused_vm_can_be_suspended(vm: VM, vmm: FakeVmm) -> None:
    assert suspended(paused(vm)).state == State.SUSPENDED
    assert not live_drives.is_held(vm)


def test_without_room_it_goes_on_and_nothing_is_left(vm: VM, vmm: FakeVmm) -> None:
    vmm.full = True
    operation = carry_out(services.suspend_vm(vm))
    assert (operation.state, operation.error["code"]) == ("failed", "disk-full")
    assert (vmm.how(vm), again(vm).state, vm.desired_state) == ("running", "ready", "running")
    assert vm.saved_memory == {}
    assert not suspended_memory(vm).exists()
    assert not saved_memory.unfinished(suspended_memory(vm)).exists()


def test_without_room_a_paused_one_stays_paused(vm: VM, vmm: FakeVmm) -> None:
    paused(vm)
    vmm.full = True
    assert carry_out(services.suspend_vm(vm)).state == "failed"
    assert (vmm.how(vm), again(vm).state, vm.desired_state) == ("paused", "paused", "paused")


@pytest.mark.parametrize(("quiet", "state"), [(math.inf, "suspended"), (599.0, "ready")])
def test_one_that_was_idle_goes_on_if_somebody_has_used_it_since(
    vm: VM, vmm: FakeVmm, quiet: float, state: str
) -> None:
    VM.objects.filter(pk=vm.pk).update(idle_suspend_minutes=10)
    vmm.quiet = quiet
    operation = carry_out(services.suspend_vm(vm, reason="idle", words="idle for 10 min"))
    assert again(vm).state == state
    if state == "ready":
        assert (operation.state, operation.error["code"]) == ("cancelled", "vm-in-use")
        assert (vmm.how(vm), vm.saved_memory) == ("running", {})
        assert not saved_memory.unfinished(suspended_memory(vm)).exists()


@pytest.mark.parametrize("place", ["freeze", "pause", "save", "kill"])
def test_a_killed_worker_leaves_it_to_the_next(vm: VM, vmm: FakeVmm, place: str) -> None:
    vmm.dies_at = place
    operation = services.suspend_vm(vm)
    with pytest.raises(Killed):
        carry_out(operation)
    vmm.new_worker()
    resume(operation)
    assert operation.state == "succeeded", operation.error
    assert (again(vm).state, vmm.how(vm)) == ("suspended", "")
    assert (suspended_memory(vm) / "memory").read_text() == "a counter"


def test_a_worker_killed_after_the_save_has_the_guest_run_before_the_next(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = saved_memory.disk_bytes

    def die(*_: object) -> None:
        vmm.dead = True
        monkeypatch.setattr(saved_memory, "disk_bytes", real)
        raise Killed

    monkeypatch.setattr(saved_memory, "disk_bytes", die)
    operation = services.suspend_vm(vm)
    with pytest.raises(Killed):
        carry_out(operation)
    assert (vmm.how(vm), again(vm).state) == ("saved", "paused")
    vmm.new_worker()
    live_drives.let_go(vm, live_drives.running(vm))
    assert (vmm.how(vm), again(vm).state) == ("running", "ready")
    vmm.remembers[vm_dir(vm)] = "counted on"
    resume(operation)
    assert operation.state == "succeeded", operation.error
    assert (suspended_memory(vm) / "memory").read_text() == "counted on"


def test_its_drives_and_its_shape_stay_as_its_memory_knows_them(vm: VM, vmm: FakeVmm) -> None:
    snapshot = taken(vm)
    suspended(vm)
    root, data = drives_of(vm)
    for call in (
        lambda: services.rollback_vm(vm, snapshot),
        lambda: services.rollback_vm(vm, snapshot, stop=True),
        lambda: services.rollback_drive(root, root.snapshots.get()),
        lambda: drive_services.resize_drive(root, 64),
        lambda: services.detach_drive(data),
        lambda: services.attach_drive(vm, make_drive(), is_root=False),
        lambda: services.update_vm(vm, mem_size_mib=256),
    ):
        with pytest.raises(Conflict, match="suspended") as caught:
            call()
        assert "nexusctl vm resume web" in caught.value.hint
        assert "nexusctl vm stop web" in caught.value.hint


def test_snapshots_and_names_are_no_matter_of_its_memory(vm: VM, vmm: FakeVmm) -> None:
    suspended(vm)
    assert taken(vm).consistency == "crash", "what its guest has not written is in the memory"
    assert services.rename_vm(vm, "other").name == "other"
    assert (suspended_memory(vm) / "memory").exists()


def test_stopping_it_gives_its_memory_up(vm: VM, vmm: FakeVmm) -> None:
    done(services.stop_vm(suspended(vm)))
    assert (again(vm).state, vm.desired_state, vm.saved_memory) == ("stopped", "stopped", {})
    assert not suspended_memory(vm).exists()
    services.update_vm(vm, mem_size_mib=256)


def test_deleting_it_takes_its_memory_along(vm: VM, vmm: FakeVmm) -> None:
    directory = suspended_memory(suspended(vm))
    done(services.delete_vm(vm))
    assert not directory.exists()
    assert not Drive.objects.filter(name="web-root").exists()


def test_who_asks_its_agent_learns_how_to_resume_it(vm: VM, vmm: FakeVmm) -> None:
    with pytest.raises(Conflict, match="is suspended") as caught:
        services.ready_vm(suspended(vm).ref)
    assert "nexusctl vm resume web" in caught.value.hint


@pytest.mark.parametrize("cold", [False, True])
def test_resuming_is_a_start(vm: VM, vmm: FakeVmm, cold: bool) -> None:
    operation = services.resume_vm(suspended(vm), cold=cold)
    assert (operation.kind, operation.params["cold"]) == ("vm.start", cold)
    assert (again(vm).state, vm.desired_state) == ("starting", "running")


def test_a_start_that_cannot_load_the_memory_leaves_it_where_it_is(vm: VM, vmm: FakeVmm) -> None:
    suspended(vm)
    operation = carry_out(services.resume_vm(vm))
    assert operation.state == "failed", "these drives boot nothing"
    assert again(vm).state == State.SUSPENDED
    resuming.settle(vm)
    assert (suspended_memory(vm) / "memory").exists()
    assert vm.saved_memory


def launched(vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch) -> str:
    """Start the VM's VMM, without a warm template; what the driver was asked last."""
    monkeypatch.setattr(warm, "find", lambda *_: (None, "none"))
    spec, fresh = SimpleNamespace(vm_dir=vm_dir(vm)), SimpleNamespace()
    resuming.start(vmm, vm, lambda: spec, fresh)  # type: ignore[arg-type, return-value]
    return vmm.done[-1]


def test_a_memory_that_is_gone_is_said_so_and_nothing_boots_by_itself(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(suspended_memory(suspended(vm)))
    with pytest.raises(Invalid, match="not as it was saved") as caught:
        launched(vm, vmm, monkeypatch)
    assert caught.value.hint.endswith("nexusctl vm start web --cold")
    assert again(vm).saved_memory


def test_without_room_for_its_memory_it_stays_suspended(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended(vm)
    vm.saved_memory["bytes"] = 1 << 50
    with pytest.raises(Conflict, match="no room for “Resume VM web”"):
        launched(vm, vmm, monkeypatch)
    assert (suspended_memory(vm) / "memory").exists()


def test_a_memory_that_has_not_got_its_name_yet_is_whole(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    memory = suspended_memory(suspended(vm))
    memory.rename(saved_memory.unfinished(memory))
    assert launched(vm, vmm, monkeypatch) == "restore"
    assert vmm.remembers[vm_dir(vm)] == "a counter"


def test_a_memory_that_nobody_knows_of_is_let_be(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspended(vm)
    VM.objects.filter(pk=vm.pk).update(saved_memory={})
    assert launched(again(vm), vmm, monkeypatch) == "launch"


@pytest.mark.parametrize("state", sorted(AT_REST - {State.SUSPENDED}))
def test_only_a_suspended_vm_is_resumed(state: State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.resume_vm(make_vm(state=state))
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.suspend_vm(make_vm(state=state))


def test_a_stop_that_comes_first_wins(vm: VM, vmm: FakeVmm) -> None:
    operation = services.suspend_vm(vm)
    done(services.stop_vm(vm))
    assert carry_out(operation).state in ("failed", "cancelled")
    assert (again(vm).state, vm.saved_memory) == ("stopped", {})
    assert not suspended_memory(vm).exists()


def test_a_dry_run_says_what_would_be_done(vm: VM, vmm: FakeVmm) -> None:
    plan = rehearse(lambda: services.suspend_vm(vm))
    assert [step["name"] for step in plan["steps"]] == ["save", "end"]
    assert again(vm).state == State.READY
    assert vmm.done == []

"""Forks: VMs that go on from one moment of another, each with what is its own."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pytest

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError
from nexus_site.core.models import Operation
from nexus_site.core.operations import rehearse
from tests.factories import make_vm, make_vm_snapshot
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import (
    Killed,
    carry_out,
    die_once,
    done,
    drives_of,
    make_running,
    read,
    resume,
    write,
)
from vms import capacity, forking, outcomes, services
from vms.models import VM, Provisioning, VMSnapshot
from vms.paths import checkpoint_memory
from vms.states import State
from vms.transitions import move
from vms.verbs import why_not

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture
def vmm(vm: VM, monkeypatch: pytest.MonkeyPatch) -> FakeVmm:
    vmm = install(monkeypatch)
    vmm.run(make_running(vm))
    monkeypatch.setattr(forking, "AT_ONCE", 1)
    return vmm


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Starts of forks as the test wants them: those named fail, the others work."""

    def arrange(*failing: str) -> None:
        def start(parent: Operation, child: Operation) -> NexusError | None:
            vm = VM.objects.get(pk=child.subject_id)
            if child.subject_name in failing:
                error = Broken("Made to fail.", code="made-to-fail")
                outcomes.start_failed(vm, error)
                return error
            move(vm, State.RUNNING, "it runs")
            move(vm, State.READY, "hello")
            VM.objects.filter(pk=vm.pk).update(resume_from=None)
            return None

        monkeypatch.setattr(forking, "_start", start)

    return arrange


def forks(vm: VM) -> list[VM]:
    return list(VM.objects.filter(parent=vm).order_by("name"))


def waiting(vm: VM, count: int = 2, **wishes: object) -> Operation:
    """Forks that are not started."""
    return done(services.fork_vm(vm, count=count, start=False, **wishes))  # type: ignore[arg-type]


def room(monkeypatch: pytest.MonkeyPatch, **free: int) -> None:
    full = replace(capacity.host_capacity(), **free)
    monkeypatch.setattr(capacity, "host_capacity", lambda: full)


@pytest.mark.parametrize(
    ("free", "where"),
    [({"memory_available_mib": 64}, "of memory"), ({"disk_free_bytes": 1 << 20}, "on the disk")],
)
def test_without_room_nothing_is_begun(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch, free: dict[str, int], where: str
) -> None:
    room(monkeypatch, **free)
    with pytest.raises(Conflict, match=f"“Fork VM web 2 times”: .*MiB {where} are needed"):
        rehearse(lambda: services.fork_vm(vm, count=2))
    operation = carry_out(services.fork_vm(vm, count=2))
    assert (operation.state, operation.error["code"]) == ("failed", "no-room")
    assert (vmm.done, forks(vm)) == ([], [])
    assert not VMSnapshot.objects.exists()


def test_forks_have_the_drives_of_one_moment_and_what_is_their_own(vm: VM, vmm: FakeVmm) -> None:
    operation = waiting(vm)
    write(drives_of(vm)[0], "later")
    one, two = forks(vm)
    assert [fork["name"] for fork in operation.result["forks"]] == ["web-1", "web-2"]
    assert (one.name, two.name) == ("web-1", "web-2")
    assert len({vm.mac, one.mac, two.mac}) == len({vm.slot, one.slot, two.slot}) == 3
    assert (one.vcpu_count, one.mem_size_mib) == (1, 128)
    for fork in (one, two):
        assert [read(drive) for drive in drives_of(fork)] == ["first", "first"]
        assert [a.read_only for a in fork.attachments.all()] == [False, True]
        assert fork.resume_from is not None
        assert (fork.resume_from, fork.source_snapshot) == (fork.resume_from,) * 2
        assert fork.state == State.CREATED
    assert vmm.how(vm) == "running"


def test_their_start_goes_on_from_the_one_memory(vm: VM, vmm: FakeVmm) -> None:
    waiting(vm)
    checkpoint = VMSnapshot.objects.get()
    assert checkpoint.for_forks
    assert [fork.resume_from for fork in forks(vm)] == [checkpoint, checkpoint]
    assert (checkpoint_memory(checkpoint) / "memory").read_text() == "a counter"


def test_a_suspended_vm_can_be_forked_and_stays_suspended(vm: VM, vmm: FakeVmm) -> None:
    done(services.suspend_vm(vm))
    vm.refresh_from_db()
    waiting(vm, 1)
    vm.refresh_from_db()
    checkpoint = VMSnapshot.objects.get()
    assert vm.state == State.SUSPENDED
    assert (checkpoint_memory(checkpoint) / "memory").read_text() == "a counter"
    done(services.stop_vm(vm))
    assert (checkpoint_memory(checkpoint) / "memory").read_text() == "a counter"


def test_a_checkpoint_can_be_forked_whatever_became_of_its_vm(vm: VM, vmm: FakeVmm) -> None:
    done(services.checkpoint_vm(vm, name="monday"))
    write(drives_of(vm)[0], "later")
    done(services.stop_vm(VM.objects.get(pk=vm.pk)))
    vm.refresh_from_db()
    drive_services.require_file(drives_of(vm)[0]).unlink()
    waiting(vm, 1, snapshot=VMSnapshot.objects.get(name="monday"), name="old")
    (fork,) = forks(vm)
    assert (fork.name, read(drives_of(fork)[0])) == ("old", "first")
    assert not VMSnapshot.objects.get().for_forks, "somebody else has taken it"


def test_each_tells_how_it_came_out(vm: VM, vmm: FakeVmm, starts: Callable[..., None]) -> None:
    starts("web-2")
    operation = done(services.fork_vm(vm, count=3))
    found = {fork["name"]: fork for fork in operation.result["forks"]}
    assert {name: fork["state"] for name, fork in found.items()} == {
        "web-1": "ready",
        "web-2": "failed",
        "web-3": "ready",
    }
    assert found["web-2"]["error"]["code"] == "made-to-fail"
    assert "error" not in found["web-1"]
    assert operation.steps[-1]["note"] == "2 of 3, not web-2: Made to fail."


def test_where_none_could_be_started_the_fork_has_failed_and_they_stay(
    vm: VM, vmm: FakeVmm, starts: Callable[..., None]
) -> None:
    starts("web-1", "web-2")
    operation = carry_out(services.fork_vm(vm, count=2))
    assert (operation.state, operation.error["code"]) == ("failed", "forks-failed")
    assert [fork.state for fork in forks(vm)] == ["failed", "failed"]
    assert all(fork.resume_from for fork in forks(vm)), "they can be started again"
    assert all(drive_services.file_of(d).exists() for fork in forks(vm) for d in drives_of(fork))


def test_a_checkpoint_taken_for_forks_goes_when_all_have_gone_on(
    vm: VM, vmm: FakeVmm, starts: Callable[..., None]
) -> None:
    starts()
    waiting(vm, 1)
    services.discard_spent_checkpoints()
    assert not Operation.objects.filter(kind="vm-snapshot.delete").exists()
    with pytest.raises(Conflict, match=r"VMs are to go on from .*: web-1"):
        services.delete_vm_snapshot(VMSnapshot.objects.get())
    VM.objects.filter(name="web-1").update(resume_from=None)
    services.discard_spent_checkpoints()
    directory = checkpoint_memory(VMSnapshot.objects.get())
    done(Operation.objects.get(kind="vm-snapshot.delete"))
    assert not VMSnapshot.objects.exists()
    assert not directory.exists()
    assert [read(drive) for drive in drives_of(forks(vm)[0])] == ["first", "first"]


def test_names_are_numbers_after_a_word_and_skip_what_is_taken(vm: VM, vmm: FakeVmm) -> None:
    make_vm(name="job-1")
    waiting(vm, 2, name="job")
    assert [fork.name for fork in forks(vm)] == ["job-2", "job-3"]
    with pytest.raises(Conflict, match="There is a VM “job-2” already"):
        services.fork_vm(vm, name="job-2")
    with pytest.raises(Invalid, match="cannot be a name"):
        services.fork_vm(vm, name="No Name", count=2)


@pytest.mark.parametrize("count", [0, 101])
def test_there_are_1_to_100_at_once(vm: VM, vmm: FakeVmm, count: int) -> None:
    with pytest.raises(Invalid, match="1 to 100"):
        services.fork_vm(vm, count=count)


@pytest.mark.parametrize("state", sorted(set(State) - {"ready", "paused", "suspended"}))
def test_only_what_has_a_memory_in_order_is_forked(state: State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.fork_vm(make_vm(state=state))


def test_a_snapshot_without_memory_or_of_another_is_none_to_fork(vm: VM, vmm: FakeVmm) -> None:
    with pytest.raises(Conflict, match="has no memory") as caught:
        services.fork_vm(vm, snapshot=make_vm_snapshot(vm))
    assert "nexusctl vm clone web" in caught.value.hint
    other = make_vm_snapshot(make_vm(), with_memory=True)
    with pytest.raises(Conflict, match="is a snapshot of the VM"):
        services.fork_vm(vm, snapshot=other)


def test_a_drive_that_cannot_be_copied_is_said_before_anything_is_done(
    vm: VM, vmm: FakeVmm
) -> None:
    data = drives_of(vm)[1]
    Drive.objects.filter(pk=data.pk).update(state=Drive.State.MISSING)
    with pytest.raises(Broken, match="file of the drive “web-data” is missing"):
        services.fork_vm(vm)
    assert not VMSnapshot.objects.exists()
    assert vmm.done == []


def test_what_the_guest_was_given_it_has_and_its_script_has_run(vm: VM, vmm: FakeVmm) -> None:
    root = drives_of(vm)[0]
    Provisioning.objects.create(vm=vm, script="make it so", script_drive=root.pk, env={"A": "b"})
    waiting(vm, 1)
    (fork,) = forks(vm)
    assert (fork.provisioning.env, fork.provisioning.script) == ({"A": "b"}, "make it so")
    assert fork.provisioning.script_drive == drives_of(fork)[0].pk


@pytest.mark.parametrize("service", ["copy_snapshots", "clone_row", "fill"])
def test_a_killed_worker_leaves_it_to_the_next(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch, service: str
) -> None:
    die_once(monkeypatch, service)
    operation = services.fork_vm(vm, count=2, start=False)
    with pytest.raises(Killed):
        carry_out(operation)
    vmm.new_worker()
    resume(operation)
    assert operation.state == "succeeded", operation.error
    assert [fork.name for fork in forks(vm)] == ["web-1", "web-2"]
    assert {d.state for fork in forks(vm) for d in drives_of(fork)} == {"ready"}


def test_what_fails_half_way_leaves_nothing(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> str:
        raise Broken("Made to fail.")

    monkeypatch.setattr(drive_services, "fill", fail)
    operation = carry_out(services.fork_vm(vm, count=2))
    assert (operation.state, operation.error["text"]) == ("failed", "Made to fail.")
    assert not forks(vm)
    assert not VMSnapshot.objects.exists()
    assert Drive.objects.count() == 2
    assert vmm.how(vm) == "running"


def test_a_start_that_nobody_goes_on_with_has_failed(
    vm: VM, vmm: FakeVmm, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(forking, "_outcomes", die)
    operation = services.fork_vm(vm, count=2)
    with pytest.raises(Killed):
        carry_out(operation)
    forking.failed(operation, Broken("Interrupted too often."))
    assert [fork.state for fork in forks(vm)] == ["failed", "failed"]
    assert {row.state for row in Operation.objects.filter(parent=operation)} == {"failed"}


def test_a_fork_that_waits_stays_as_the_memory_knows_it(vm: VM, vmm: FakeVmm) -> None:
    waiting(vm, 1)
    (fork,) = forks(vm)
    with pytest.raises(Conflict, match="to go on from a checkpoint"):
        services.update_vm(fork, mem_size_mib=256)
    with pytest.raises(Conflict, match="to go on from a checkpoint"):
        drive_services.resize_drive(drives_of(fork)[0], 64)


def test_a_dry_run_says_what_would_be_done(vm: VM, vmm: FakeVmm) -> None:
    plan = rehearse(lambda: services.fork_vm(vm, count=3))
    assert plan["title"] == "Fork VM web 3 times"
    assert [s["name"] for s in plan["steps"]] == ["room", "checkpoint", "vms", "drives", "start"]
    assert not VMSnapshot.objects.exists()


@pytest.mark.parametrize(
    ("state", "way"),
    [
        (State.READY, "goes on meanwhile: nexusctl vm agent-upgrade web"),
        (State.PAUSED, "vm unpause web.*vm agent-upgrade web"),
        (State.SUSPENDED, "vm resume web.*vm agent-upgrade web"),
    ],
)
def test_nothing_goes_on_from_an_agent_that_makes_no_other_guest_of_it(
    vm: VM, vmm: FakeVmm, state: State, way: str
) -> None:
    VM.objects.filter(pk=vm.pk).update(agent={"agent_version": "0.3.1"}, state=state)
    vm.refresh_from_db()
    takes: tuple[Callable[[VM], Operation], ...] = (services.fork_vm, services.checkpoint_vm)
    for take in takes:
        with pytest.raises(Conflict, match=r"agent \(0\.3\.1\) is too old") as caught:
            rehearse(lambda take=take: take(vm))  # type: ignore[misc]
        assert caught.value.code == "agent-outdated"
        assert re.search(way, caught.value.hint)
    assert why_not(vm, "fork") == why_not(vm, "checkpoint") != ""
    if state == State.READY:  # it goes on as itself
        done(services.suspend_vm(vm))


def test_of_a_checkpoint_from_before_forks_are_made_whatever_the_agent_is_now(
    vm: VM, vmm: FakeVmm
) -> None:
    VM.objects.filter(pk=vm.pk).update(agent={"agent_version": "0.4.0"})
    vm.refresh_from_db()
    done(services.checkpoint_vm(vm, name="monday"))
    VM.objects.filter(pk=vm.pk).update(agent={"agent_version": "0.3.1"})
    vm.refresh_from_db()
    waiting(vm, 1, snapshot=VMSnapshot.objects.get())
    assert len(forks(vm)) == 1

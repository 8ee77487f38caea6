"""VMs that are held still while their drives are copied; a driver and an agent that take notes."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from drives import live
from drives import services as drive_services
from drives.models import Consistency, Drive
from nexus_site.core.errors import Conflict, Retryable
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Cancelled, Run
from tests.factories import make_drive, make_vm
from vms import lifecycle, live_drives, services, supervision
from vms.hypervisors.base import Exit, Handle
from vms.live_drives import hold
from vms.models import VM
from vms.states import ALIVE, AT_REST, TRANSIENT, Desired, State
from vms.transitions import move

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

HANDLE = Handle(Path("/nowhere"), 1, 1, 2, 2, "tcg")


class Notes:
    """Stands in for driver and supervisor; ``done`` is what they were asked, in order."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.found: Handle | Exit = HANDLE
        self.freezes = True
        self.resume_fails = 0

    def adopt(self, _: Path) -> Handle | Exit:
        return self.found

    def pause(self, _: Handle) -> None:
        self.done.append("pause")

    def resume(self, _: Handle) -> None:
        self.done.append("resume")
        if self.resume_fails:
            self.resume_fails -= 1
            raise Retryable("QEMU does not answer.")
        if isinstance(self.found, Exit):
            raise Conflict("The VM does not run any more.")

    def freeze(self, _: VM) -> bool:
        self.done.append("freeze")
        return self.freezes

    def thaw(self, _: VM) -> bool:
        self.done.append("thaw")
        return True

    def ask_to_shut_down(self, _: VM) -> bool:
        return False

    def wake(self) -> None:
        pass


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch) -> Iterator[Notes]:
    notes = Notes()
    monkeypatch.setattr(live_drives, "driver_of", lambda vm: notes)
    supervision.set_supervisor(notes)
    yield notes
    supervision.set_supervisor(None)


def a_run(drive: Drive) -> Run:
    """That of an operation which copies the drive."""
    made = make_drive(origin=Drive.Origin.DRIVE, source_drive=drive)
    return Run(open_operation("drive.create", "Copy it", subject=made, params={"drive": made.ref}))


def in_state(state: State) -> tuple[VM, Drive, Run]:
    vm = make_vm(state=state)
    drive = Drive.objects.get(attachment__vm=vm)
    return vm, drive, a_run(drive)


def states(vm: VM) -> list[str]:
    return [row.to_state for row in vm.history.all()][1:]


def test_a_drive_in_no_vm_is_at_rest(notes: Notes) -> None:
    drive = make_drive()
    with hold([drive], a_run(drive)) as held:
        assert held.consistency == Consistency.AT_REST
    assert notes.done == []
    assert held.milliseconds is None


@pytest.mark.parametrize("state", sorted(AT_REST))
def test_a_vm_at_rest_is_let_be(notes: Notes, state: State) -> None:
    vm, drive, run = in_state(state)
    cut = state == State.SUSPENDED  # its guest has not written everything out
    with hold([drive], run) as held:
        assert held.consistency == (Consistency.CRASH if cut else Consistency.AT_REST)
    assert (notes.done, states(vm)) == ([], [])


def test_a_ready_vm_is_frozen_and_stands_still(notes: Notes) -> None:
    vm, drive, run = in_state(State.READY)
    with hold([drive], run) as held:
        assert notes.done == ["freeze", "pause"]
        assert held.consistency == Consistency.FROZEN
        assert live_drives.is_held(vm)
        vm.refresh_from_db()
        assert vm.state == State.PAUSED
    assert notes.done == ["freeze", "pause", "resume", "thaw"]
    assert held.milliseconds is not None
    assert not live_drives.is_held(vm)
    assert states(vm) == ["paused", "ready"]
    assert vm.history.filter(to_state="paused").get().reason == "held still: Copy it"


def test_an_agent_that_does_not_freeze_makes_it_a_power_cut(notes: Notes) -> None:
    notes.freezes = False
    vm, drive, run = in_state(State.READY)
    with hold([drive], run) as held:
        assert held.consistency == Consistency.CRASH
    assert notes.done == ["freeze", "pause", "resume", "thaw"], "who knows how far it came"
    assert states(vm) == ["paused", "ready"]


def test_a_freeze_that_may_be_over_does_not_count(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "FREEZE_SECONDS", 0.0)
    _, drive, run = in_state(State.READY)
    with hold([drive], run) as held:
        assert held.consistency == Consistency.CRASH


@pytest.mark.parametrize("state", sorted(ALIVE - {State.READY, State.PAUSED}))
def test_a_vm_without_agent_stands_still_and_stays_what_it_is(notes: Notes, state: State) -> None:
    vm, drive, run = in_state(state)
    with hold([drive], run) as held:
        assert held.consistency == Consistency.CRASH
        vm.refresh_from_db()
        assert vm.state == state
    assert notes.done == ["pause", "resume"]


@pytest.mark.parametrize("state", sorted(TRANSIENT))
def test_a_vm_that_starts_or_stops_is_not_held(notes: Notes, state: State) -> None:
    _, drive, run = in_state(state)
    with pytest.raises(Conflict, match=f"is {state.value}"), hold([drive], run):
        pytest.fail("it was held")
    assert notes.done == []


def test_a_vm_that_somebody_has_paused_stays_paused(notes: Notes) -> None:
    vm, drive, run = in_state(State.PAUSED)
    services.wish(vm, Desired.PAUSED)
    with hold([drive], run) as held:
        assert held.consistency == Consistency.CRASH
    live_drives.let_go(vm, HANDLE)
    assert (notes.done, states(vm), held.milliseconds) == (["pause"], [], None)
    assert live_drives.is_held(vm), "its agent cannot answer"
    services.wish(vm, Desired.RUNNING)
    live_drives.let_go(vm, HANDLE)
    assert (notes.done, states(vm)) == (["pause", "resume"], ["ready"])
    assert not live_drives.is_held(vm)


def test_a_guest_whose_memory_is_saved_is_not_frozen_in_it(notes: Notes) -> None:
    _, drive, run = in_state(State.READY)
    with hold([drive], run, with_memory=True) as held:
        assert notes.done == ["freeze", "thaw", "pause"]
    assert held.consistency == Consistency.CRASH


def test_whatever_happens_inside_the_vm_goes_on(notes: Notes) -> None:
    vm, drive, run = in_state(State.READY)
    with pytest.raises(KeyboardInterrupt), hold([drive], run):
        raise KeyboardInterrupt
    assert notes.done[-2:] == ["resume", "thaw"]
    assert states(vm) == ["paused", "ready"]


def test_a_vm_that_is_told_to_stop_meanwhile_goes_on_to_stop(notes: Notes) -> None:
    vm, drive, run = in_state(State.READY)
    with hold([drive], run):
        services.stop_vm(VM.objects.get(pk=vm.pk))
    assert notes.done[-2:] == ["resume", "thaw"]
    assert states(vm) == ["paused", "stopping"]


def test_a_stop_between_freeze_and_pause_ends_the_hold(notes: Notes) -> None:
    vm, drive, run = in_state(State.READY)
    notes.pause = lambda _: move(vm, State.STOPPING, "stop requested")  # type: ignore[assignment]
    with pytest.raises(Conflict, match="is stopping"), hold([drive], run):
        pytest.fail("it was held")
    assert notes.done == ["freeze", "resume", "thaw"]


def test_a_vm_that_dies_meanwhile_is_left_to_those_who_watch_it(notes: Notes) -> None:
    vm, drive, run = in_state(State.READY)
    with hold([drive], run) as held:
        notes.found = Exit(None, 9, 1.0)
    assert held.consistency == Consistency.FROZEN, "the copy is good"
    assert states(vm) == ["paused"]


def test_a_vm_that_has_just_died_is_not_held(notes: Notes) -> None:
    notes.found = Exit(None, 9, 1.0)
    _, drive, run = in_state(State.READY)
    with pytest.raises(Conflict, match="cannot be held now"), hold([drive], run):
        pytest.fail("it was held")


@pytest.mark.parametrize(("failures", "end"), [(2, ["paused", "ready"]), (3, ["paused"])])
def test_resuming_is_tried_again(notes: Notes, failures: int, end: list[str]) -> None:
    notes.resume_fails = failures
    vm, drive, run = in_state(State.READY)
    with hold([drive], run):
        pass
    assert states(vm) == end
    live_drives.let_go(vm, HANDLE)
    vm.refresh_from_db()
    assert vm.state == State.READY


def test_inside_a_hold_the_same_vm_just_stays_held(notes: Notes) -> None:
    _, drive, run = in_state(State.READY)
    with hold([drive], run), live.live().hold([drive], run) as consistency:
        assert consistency == Consistency.FROZEN
        assert notes.done == ["freeze", "pause"]
    assert notes.done == ["freeze", "pause", "resume", "thaw"]


def test_another_one_waits_and_asks_whether_it_is_still_wanted(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live_drives, "LOOK", 0.01)
    vm, drive, run = in_state(State.READY)
    inside, over = threading.Event(), threading.Event()

    def occupy() -> None:
        with live_drives._lock_of(vm):
            inside.set()
            over.wait(60)

    thread = threading.Thread(target=occupy)
    thread.start()
    inside.wait(60)
    try:
        live_drives.let_go(vm, HANDLE)
        assert notes.done == [], "somebody alive holds it"
        Operation.objects.filter(pk=run.operation.pk).update(cancel_requested=True)
        with pytest.raises(Cancelled), hold([drive], run):
            pytest.fail("two at once")
    finally:
        over.set()
        thread.join()
    Operation.objects.filter(pk=run.operation.pk).update(cancel_requested=False)
    with hold([drive], run) as held:
        assert held.consistency == Consistency.FROZEN


def test_what_a_killed_worker_held_is_held_on_by_who_repeats_its_work(notes: Notes) -> None:
    vm, drive, run = in_state(State.READY)
    move(vm, State.PAUSED, "held still", detail={"consistency": "frozen"})
    with hold([drive], run) as held:
        assert held.consistency == Consistency.FROZEN, "it has not run since"
    assert notes.done == ["pause", "resume"]
    assert states(vm) == ["paused", "ready"]


@pytest.mark.parametrize("state", [State.PAUSED, State.READY, State.RUNNING])
def test_what_a_killed_worker_held_is_let_go(notes: Notes, state: State) -> None:
    """Also one that was killed before it could write down that the CPUs stand still."""
    vm, _, _ = in_state(state)
    live_drives.let_go(vm, HANDLE)
    assert notes.done == ["resume"]
    vm.refresh_from_db()
    assert vm.state == (State.READY if state == State.PAUSED else state)


def test_drives_of_two_vms_are_not_one_instant(notes: Notes) -> None:
    _, drive, run = in_state(State.READY)
    _, other, _ = in_state(State.READY)
    with pytest.raises(Conflict, match="not in one VM"), hold([drive, other], run):
        pytest.fail("it was held")


def test_at_rest_nothing_else_may_write(notes: Notes) -> None:
    vm, drive, run = in_state(State.STOPPED)
    open_operation("vm.delete", "Delete it", subject=vm, params={"vm": vm.ref})
    with pytest.raises(Conflict, match="busy: Delete it"), hold([drive], run):
        pytest.fail("it was held")
    free = make_drive()
    run = a_run(free)
    open_operation("drive.delete", "Delete it", subject=free, params={"drive": free.ref})
    with pytest.raises(Conflict, match="busy: Delete it"), hold([free], run):
        pytest.fail("it was held")


def test_two_copies_of_a_vm_at_rest_do_not_mind_each_other(notes: Notes) -> None:
    vm, drive, run = in_state(State.STOPPED)
    params = {"vm": vm.ref, "vm_snapshot": "aaaaaaaaaaaac"}
    open_operation("vm.snapshot", "Snapshot it", subject=vm, params=params)
    with hold([drive], run) as held:
        assert held.consistency == Consistency.AT_REST


def test_only_drives_at_rest_are_changed() -> None:
    live.live().require_rest(make_drive(), "be resized")
    vm, drive, _ = in_state(State.READY)
    with pytest.raises(
        Conflict, match=r"is ready; only the drives of a VM at rest can be resized"
    ) as caught:
        live.live().require_rest(drive, "be resized")
    assert caught.value.code == "vm-runs"
    VM.objects.filter(pk=vm.pk).update(state=State.STOPPED)
    live.live().require_rest(drive, "be resized")
    open_operation("vm.delete", "Delete it", subject=vm, params={"vm": vm.ref})
    with pytest.raises(Conflict, match="busy"):
        live.live().require_rest(drive, "be resized")


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
def test_drives_of_a_vm_on_its_way_are_not_copied(state: State) -> None:
    _, drive, run = in_state(state)
    drives = list(Drive.objects.all())
    for call in (
        lambda: drive_services.take_snapshot(drive),
        lambda: drive_services.create_drive(drive=drive),
    ):
        with pytest.raises(Conflict, match=f"is {state}") as refused:
            call()
        assert refused.value.code == "vm-busy"
    assert list(Operation.objects.all()) == [run.operation]
    assert list(Drive.objects.all()) == drives


def test_a_stop_waits_until_the_copies_are_made(
    notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pressing the power button would let the guest write while they are."""
    vm = make_vm(state=State.READY)
    order: list[str] = []

    @contextmanager
    def alone(*_: object) -> Iterator[None]:
        order.append("waited")
        yield

    monkeypatch.setattr(live_drives, "alone_with", alone)
    monkeypatch.setattr(lifecycle, "driver_of", lambda vm: notes)
    monkeypatch.setattr(notes, "ask_to_shut_down", lambda _: order.append("asked"))
    monkeypatch.setattr(notes, "shutdown", lambda *_, **__: order.append("button"), raising=False)
    monkeypatch.setattr(notes, "kill", lambda _: order.append("killed"), raising=False)
    stop = services.stop_vm(vm)
    lifecycle.shut_down(Run(stop))
    assert order == ["waited", "asked", "button", "killed"]
    order.clear()
    stop.params["force"] = True
    lifecycle.shut_down(Run(stop))
    assert order == ["killed"], "nobody waits for force"

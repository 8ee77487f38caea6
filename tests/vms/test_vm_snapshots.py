"""Snapshots of VMs, and going back to one: what may be asked when, what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drives import services as drive_services
from drives.models import Consistency, Drive, Snapshot
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid
from nexus_site.core.models import Event, Operation
from nexus_site.core.operations import rehearse
from tests.factories import make_drive, make_snapshot, make_vm, make_vm_snapshot
from tests.vms.real_drives import (
    Killed,
    add_drive,
    carry_out,
    die_once,
    done,
    drives_of,
    make_running,
    read,
    resume,
    taken,
    write,
)
from vms import services
from vms.models import VM, VMSnapshot
from vms.states import ALIVE, TRANSIENT, State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


def test_a_snapshot_has_all_drives_and_what_the_vm_was_like(vm: VM) -> None:
    snapshot = taken(vm, "monday")
    assert (snapshot.state, snapshot.consistency) == ("ready", Consistency.AT_REST)
    assert snapshot.held_ms is None, "nothing ran"
    assert (snapshot.vcpu_count, snapshot.mem_size_mib) == (1, 128)
    parts = list(snapshot.parts.select_related("snapshot__drive"))
    assert [(p.snapshot.drive.name, p.is_root, p.read_only) for p in parts] == [
        ("web-root", True, False),
        ("web-data", False, True),
    ]
    assert [p.snapshot.name for p in parts] == ["monday", "monday-web-data"]
    assert {p.snapshot.state for p in parts} == {"ready"}
    assert {p.snapshot.consistency for p in parts} == {"at-rest"}


def test_each_snapshot_goes_on_from_the_one_before(vm: VM) -> None:
    first, second = taken(vm), taken(vm)
    assert (first.parent, second.parent, vm.head) == (None, first, second)


def test_the_event_log_tells_of_it_under_the_vm(vm: VM) -> None:
    snapshot = taken(vm, "monday")
    event = Event.objects.get(kind="vm.snapshot_ready")
    assert event.subject_id == vm.pk
    assert event.data["snapshot"] == snapshot.ref
    assert event.data["consistency"] == "at-rest"


def test_a_snapshots_name_is_a_name_and_free(vm: VM) -> None:
    taken(vm, "monday")
    with pytest.raises(Conflict, match="There is a VM snapshot “monday” already"):
        services.snapshot_vm(vm, name="monday")
    with pytest.raises(Invalid, match="cannot be a name"):
        services.snapshot_vm(vm, name="No Name")
    tuesday = taken(vm, "tuesday")
    with pytest.raises(Conflict, match="already"):
        services.rename_vm_snapshot(tuesday, "monday")
    with pytest.raises(Invalid):
        services.rename_vm_snapshot(tuesday, "")
    assert services.rename_vm_snapshot(tuesday, "wednesday").name == "wednesday"


def test_the_longest_names_fit(vm: VM) -> None:
    snapshot = taken(vm, "x" * 63)
    names = [part.snapshot.name for part in snapshot.parts.select_related("snapshot")]
    assert all(len(name) <= 63 for name in names)
    assert len(set(names)) == 2


@pytest.mark.parametrize("state", sorted(TRANSIENT))
def test_there_is_no_snapshot_while_a_vm_starts_or_stops(state: State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.snapshot_vm(make_vm(state=state))


def test_a_vm_without_drives_has_nothing_to_keep() -> None:
    with pytest.raises(Conflict, match="has no drives"):
        services.snapshot_vm(make_vm(root=False))


def test_while_a_snapshot_is_made_the_vm_is_busy(vm: VM) -> None:
    operation = services.snapshot_vm(vm)
    for call in (
        lambda: services.start_vm(vm),
        lambda: services.snapshot_vm(vm),
        lambda: services.clone_vm(vm),
        lambda: services.delete_vm(vm),
        lambda: services.detach_drive(drives_of(vm)[0]),
        lambda: services.attach_drive(vm, make_drive(), is_root=False),
    ):
        with pytest.raises(Conflict, match="busy") as caught:
            call()
        assert caught.value.extra["operation"] == operation.ref


def test_a_snapshot_whose_copy_fails_leaves_nothing(
    vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = drive_services.storage()
    data = drives_of(vm)[1].ref
    real = type(storage).snapshot

    def fail(self: object, drive_id: str, snapshot_id: str, *more: object) -> Path:
        if drive_id == data:
            raise Broken("Made to fail.")
        return real(storage, drive_id, snapshot_id)

    monkeypatch.setattr(type(storage), "snapshot", fail)
    operation = services.snapshot_vm(vm)
    parts = [snapshot.ref for snapshot in Snapshot.objects.all()]
    carry_out(operation)
    assert (operation.state, operation.error["text"]) == ("failed", "Made to fail.")
    assert not VMSnapshot.objects.exists()
    assert not Snapshot.objects.exists()
    assert not [ref for ref in parts if storage.snapshot_path(ref).exists()]
    vm.refresh_from_db()
    assert vm.head is None
    assert [drive.head for drive in drives_of(vm)] == [None, None]


def test_deleting_a_snapshot_moves_what_went_on_from_it(vm: VM) -> None:
    first, second, third = taken(vm), taken(vm), taken(vm)
    parts = [part.ref for part in second.drives.all()]
    done(services.delete_vm_snapshot(second))
    third.refresh_from_db()
    assert third.parent == first
    done(services.delete_vm_snapshot(third))
    vm.refresh_from_db()
    assert vm.head == first
    storage = drive_services.storage()
    assert not [ref for ref in parts if storage.snapshot_path(ref).exists()]
    assert Snapshot.objects.count() == 2


def test_a_snapshot_is_deleted_once(vm: VM) -> None:
    snapshot = taken(vm)
    services.delete_vm_snapshot(snapshot)
    with pytest.raises(Conflict):
        services.delete_vm_snapshot(snapshot)
    with pytest.raises(Conflict, match="is deleting"):
        snapshot.refresh_from_db()
        services.rollback_vm(vm, snapshot)


def test_a_deletion_that_is_cancelled_gives_the_snapshot_back(vm: VM) -> None:
    snapshot = taken(vm)
    operation = services.delete_vm_snapshot(snapshot)
    operations.cancel(operation)
    assert carry_out(operation).state == "cancelled"
    snapshot.refresh_from_db()
    assert snapshot.state == VMSnapshot.State.READY


# Going back


def test_going_back_gives_all_drives_what_they_held(vm: VM) -> None:
    first = taken(vm)
    for drive in drives_of(vm):
        write(drive, "second")
    second = taken(vm)
    operation = done(services.rollback_vm(vm, first))
    assert [step["name"] for step in operation.steps] == ["restore"]
    assert [read(drive) for drive in drives_of(vm)] == ["first", "first"]
    vm.refresh_from_db()
    assert vm.head == first
    done(services.rollback_vm(vm, second))
    assert [read(drive) for drive in drives_of(vm)] == ["second", "second"]
    assert taken(vm).parent == second


def test_a_drive_of_later_stays_as_it_is_and_is_named(vm: VM) -> None:
    first = taken(vm)
    later = add_drive(vm, "later", is_root=False)
    write(later, "second")
    operation = done(services.rollback_vm(vm, first))
    assert operation.steps[0]["note"].endswith("not in the snapshot: web-later")
    assert read(later) == "second"


def test_a_drive_that_is_elsewhere_by_now_is_named(vm: VM) -> None:
    snapshot = taken(vm)
    services.detach_drive(Drive.objects.get(name="web-data"))
    with pytest.raises(Conflict, match="any more: web-data") as caught:
        services.rollback_vm(vm, snapshot)
    assert caught.value.code == "drive-not-attached"
    assert caught.value.extra["drives"] == ["web-data"]


@pytest.mark.parametrize("state", sorted(ALIVE))
def test_a_vm_that_runs_goes_back_only_if_it_may_be_stopped(vm: VM, state: State) -> None:
    snapshot = make_vm_snapshot(vm)
    VM.objects.filter(pk=vm.pk).update(state=state)
    vm.refresh_from_db()
    with pytest.raises(Conflict, match=f"is {state.value}") as caught:
        services.rollback_vm(vm, snapshot)
    assert "--stop" in caught.value.hint
    operation = services.rollback_vm(vm, snapshot, stop=True)
    assert [step["name"] for step in operation.steps] == [
        "shutdown", "end", "restore", "start", "storage", "kernel", "launch", "agent",
    ]  # fmt: skip
    assert (vm.state, vm.desired_state) == (State.STOPPING, "running")


@pytest.mark.parametrize("state", sorted(TRANSIENT))
def test_a_vm_that_starts_or_stops_does_not_go_back(vm: VM, state: State) -> None:
    snapshot = make_vm_snapshot(vm)
    VM.objects.filter(pk=vm.pk).update(state=state)
    vm.refresh_from_db()
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.rollback_vm(vm, snapshot, stop=True)


def test_a_dry_run_of_going_back_stops_nothing(vm: VM) -> None:
    snapshot = make_vm_snapshot(vm)
    VM.objects.filter(pk=vm.pk).update(state=State.READY)
    vm.refresh_from_db()
    plan = rehearse(lambda: services.rollback_vm(vm, snapshot, stop=True))
    assert [row["name"] for row in plan["steps"]][:4] == ["shutdown", "end", "restore", "start"]
    vm.refresh_from_db()
    assert vm.state == State.READY
    assert not Operation.objects.exists()


def test_a_snapshot_of_another_vm_is_refused_naming_it(vm: VM) -> None:
    snapshot = make_vm_snapshot(make_vm(name="other"))
    for call in (
        lambda: services.rollback_vm(vm, snapshot),
        lambda: services.clone_vm(vm, snapshot=snapshot),
    ):
        with pytest.raises(Conflict, match="of the VM “other”"):
            call()


def test_a_single_drive_goes_back_too(vm: VM) -> None:
    root, data = drives_of(vm)
    snapshot = make_snapshot(drive=data)
    drive_services.storage().snapshot(data.ref, snapshot.ref)
    write(root, "second"), write(data, "second")
    done(services.rollback_drive(data, snapshot))
    assert (read(root), read(data)) == ("second", "first")
    with pytest.raises(Conflict, match="of the drive “web-data”"):
        services.rollback_drive(root, snapshot)


def test_a_drive_of_a_vm_that_runs_goes_back_only_if_that_may_be_stopped(vm: VM) -> None:
    data = drives_of(vm)[1]
    snapshot = make_snapshot(drive=data)
    VM.objects.filter(pk=vm.pk).update(state=State.READY)
    with pytest.raises(Conflict, match="is ready"):
        services.rollback_drive(data, snapshot)
    operation = services.rollback_drive(data, snapshot, stop=True)
    assert (operation.subject_kind, operation.subject_name) == ("drive", "web-data")
    assert [step["name"] for step in operation.steps][:4] == [
        "shutdown", "end", "restore", "start",
    ]  # fmt: skip
    vm.refresh_from_db()
    assert vm.state == State.STOPPING
    with pytest.raises(Conflict, match="busy: Roll drive"):
        services.restart_vm(make_running(vm))


def test_a_drive_in_no_vm_goes_back(vm: VM) -> None:
    data = drives_of(vm)[1]
    services.detach_drive(data)
    data = Drive.objects.get(pk=data.pk)
    snapshot = make_snapshot(drive=data)
    drive_services.storage().snapshot(data.ref, snapshot.ref)
    write(data, "second")
    done(services.rollback_drive(data, snapshot, stop=True))
    assert read(data) == "first"


@pytest.mark.parametrize("call", ["copy_snapshots", "discard_snapshot"])
def test_a_snapshot_that_was_cut_short_is_made_or_leaves_nothing(
    vm: VM, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    operation = services.snapshot_vm(vm)
    undone = call == "discard_snapshot"
    if undone:
        operations.cancel(operation)
    die_once(monkeypatch, call)
    with pytest.raises(Killed):
        operations.execute(operation.id)
    resume(operation)
    assert operation.state == ("cancelled" if undone else "succeeded")
    assert Snapshot.objects.count() == (0 if undone else 2)
    assert VMSnapshot.objects.count() == (0 if undone else 1)


@pytest.mark.parametrize("keep_drives", [False, True])
def test_a_deletion_that_was_cut_short_is_finished(
    vm: VM, monkeypatch: pytest.MonkeyPatch, keep_drives: bool
) -> None:
    taken(vm)
    operation = services.delete_vm(vm, with_snapshots=True, keep_drives=keep_drives)
    die_once(monkeypatch, "discard_snapshot")
    with pytest.raises(Killed):
        operations.execute(operation.id)
    resume(operation)
    assert operation.state == "succeeded", operation.error
    assert not Snapshot.objects.exists()
    assert Drive.objects.count() == (2 if keep_drives else 0)

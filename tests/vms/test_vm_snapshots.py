"""Snapshots of VMs, going back to one, and clones: what may be asked when, and what comes of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from drives import services as drive_services
from drives.models import Consistency, Drive, Snapshot
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid
from nexus_site.core.models import Event, Operation
from nexus_site.core.operations import rehearse
from tests.factories import make_drive, make_image, make_snapshot, make_vm, make_vm_snapshot
from vms import services
from vms.models import VM, Attachment, VMSnapshot
from vms.states import ALIVE, TRANSIENT, State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

SIZE = 1 << 20


@pytest.fixture
def vm() -> VM:
    """A VM at rest with a root drive and a data drive that are really there."""
    vm = make_vm(name="web", root=False, mem_size_mib=128)
    add_drive(vm, "root", is_root=True)
    add_drive(vm, "data", is_root=False, read_only=True)
    return vm


def add_drive(vm: VM, name: str, *, is_root: bool, read_only: bool = False) -> Drive:
    drive = make_drive(name=f"{vm.name}-{name}", size_bytes=SIZE, delete_with_vm=True)
    drive_services.storage().create(drive.ref, SIZE)
    Attachment.objects.create(vm=vm, drive=drive, is_root=is_root, read_only=read_only)
    write(drive, "first")
    return drive


def write(drive: Drive, text: str) -> None:
    """Into a place of the drive that its file system does not use."""
    with drive_services.storage().drive_path(drive.ref).open("r+b") as file:
        file.seek(SIZE // 2)
        file.write(text.encode().ljust(16))


def read(drive: Drive) -> str:
    with drive_services.storage().drive_path(drive.ref).open("rb") as file:
        file.seek(SIZE // 2)
        return file.read(16).decode().strip()


def drives_of(vm: VM) -> list[Drive]:
    return [a.drive for a in vm.attachments.select_related("drive")]


def carry_out(operation: Operation) -> Operation:
    operations.execute(operation.id)
    operation.refresh_from_db()
    return operation


def done(operation: Operation) -> Operation:
    carry_out(operation)
    assert operation.state == "succeeded", operation.error
    return operation


def taken(vm: VM, name: str = "") -> VMSnapshot:
    operation = done(services.snapshot_vm(vm, name=name))
    vm.refresh_from_db()
    return VMSnapshot.objects.get(pk=operations.decode(operation.params["vm_snapshot"]))


# Snapshots


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


def make_running(vm: VM) -> VM:
    VM.objects.filter(pk=vm.pk).update(state=State.READY)
    vm.refresh_from_db()
    return vm


def test_a_drive_in_no_vm_goes_back(vm: VM) -> None:
    data = drives_of(vm)[1]
    services.detach_drive(data)
    data = Drive.objects.get(pk=data.pk)
    snapshot = make_snapshot(drive=data)
    drive_services.storage().snapshot(data.ref, snapshot.ref)
    write(data, "second")
    done(services.rollback_drive(data, snapshot, stop=True))
    assert read(data) == "first"


# Clones


def test_a_clone_has_its_own_drives_and_mac(vm: VM) -> None:
    operation = done(services.clone_vm(vm, name="copy"))
    clone = VM.objects.get(name="copy")
    assert operation.subject_id == clone.pk
    assert clone.mac != vm.mac
    assert (clone.vcpu_count, clone.mem_size_mib) == (1, 128)
    assert clone.history.get().reason == "cloned from web"
    places = [
        (a.drive.name, a.is_root, a.read_only, a.drive.delete_with_vm, a.drive.state)
        for a in clone.attachments.select_related("drive")
    ]
    assert places == [
        ("copy", True, False, True, "ready"),
        ("copy-web-data", False, True, True, "ready"),
    ]
    root, data = drives_of(clone)
    write(root, "second")
    assert [read(drive) for drive in drives_of(vm)] == ["first", "first"]
    assert (read(root), read(data)) == ("second", "first")


def test_a_clone_of_a_snapshot_is_as_the_vm_was_then(vm: VM) -> None:
    snapshot = taken(vm, "monday")
    services.update_vm(vm, mem_size_mib=256)
    for drive in drives_of(vm):
        write(drive, "second")
    done(services.clone_vm(vm, name="copy", snapshot=snapshot))
    clone = VM.objects.get(name="copy")
    assert [read(drive) for drive in drives_of(clone)] == ["first", "first"]
    assert (clone.mem_size_mib, clone.source_snapshot) == (128, snapshot)
    assert clone.history.get().reason == "cloned from web, snapshot monday"
    done(services.delete_vm_snapshot(snapshot))
    clone.refresh_from_db()
    assert clone.source_snapshot is None
    assert [read(drive) for drive in drives_of(clone)] == ["first", "first"]


def test_a_clone_can_be_larger_and_is_checked(vm: VM) -> None:
    with pytest.raises(Invalid, match="64 to"):
        services.clone_vm(vm, mem_size_mib=1)
    with pytest.raises(Conflict, match="There is a VM “web” already"):
        services.clone_vm(vm, name="web")
    services.clone_vm(vm, name="copy", mem_size_mib=192)
    assert VM.objects.get(name="copy").mem_size_mib == 192


def test_a_clone_that_is_to_start_has_that_step(vm: VM) -> None:
    operation = services.clone_vm(vm, start=True)
    assert [step["name"] for step in operation.steps] == ["drives", "start"]


def test_what_is_copied_stays_until_it_is(vm: VM) -> None:
    snapshot = taken(vm)
    services.clone_vm(vm, snapshot=snapshot)
    for call in (
        lambda: services.delete_vm_snapshot(snapshot),
        lambda: services.rollback_vm(vm, snapshot),
        lambda: services.start_vm(vm),
        lambda: services.delete_vm(vm, with_snapshots=True),
    ):
        with pytest.raises(Conflict, match="is being made of it"):
            call()


def test_a_clone_whose_copy_fails_leaves_nothing(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = services.clone_vm(vm, name="copy")
    data = Drive.objects.get(name="copy-web-data")
    storage = drive_services.storage()
    real = type(storage).clone_drive

    def fail(self: object, source_id: str, drive_id: str, *more: object) -> Path:
        if drive_id == data.ref:
            raise Broken("Made to fail.")
        return real(storage, source_id, drive_id)

    monkeypatch.setattr(type(storage), "clone_drive", fail)
    assert carry_out(operation).state == "failed"
    assert not VM.objects.filter(name="copy").exists()
    assert not Drive.objects.filter(name__startswith="copy").exists()


def test_an_interrupted_clone_copies_all_drives_again(vm: VM) -> None:
    """Else they would be of two instants."""
    operation = services.clone_vm(vm, name="copy")
    root = Drive.objects.get(name="copy")
    drive_services.storage().clone_drive(drives_of(vm)[0].ref, root.ref)
    drive_services.mark_ready(root)
    for drive in drives_of(vm):
        write(drive, "second")
    done(operation)
    assert [read(drive) for drive in drives_of(VM.objects.get(name="copy"))] == ["second"] * 2


# Attaching, and deleting VMs


def test_a_drive_of_a_running_vm_is_refused_with_the_reason(vm: VM) -> None:
    assert services.hotplug_problem(vm) == ""
    drive = drives_of(vm)[1]
    vm = make_running(vm)
    assert "virtio-mmio" in services.hotplug_problem(vm)
    for call in (
        lambda: services.attach_drive(vm, make_drive(), is_root=False),
        lambda: services.detach_drive(drive),
    ):
        with pytest.raises(Conflict, match="only a VM at rest") as caught:
            call()
        assert caught.value.code == "no-hotplug"
        assert "virtio-mmio" in caught.value.detail
        assert caught.value.hint == "Stop it first: nexusctl vm stop web"


def test_attaching_says_whether_the_drive_goes_with_the_vm(vm: VM) -> None:
    for wish, before, after in ((None, True, True), (False, True, False), (True, False, True)):
        drive = make_drive(delete_with_vm=before)
        services.attach_drive(vm, drive, is_root=False, delete_with_vm=wish)
        drive.refresh_from_db()
        assert drive.delete_with_vm is after


@pytest.mark.parametrize("state", [Drive.State.DELETING, Drive.State.MISSING])
def test_a_drive_that_is_not_there_is_not_attached(vm: VM, state: Drive.State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.attach_drive(vm, make_drive(state=state), is_root=False)


def test_a_vm_takes_the_drives_along_that_go_with_it(vm: VM) -> None:
    Drive.objects.filter(name="web-data").update(delete_with_vm=False)
    done(services.delete_vm(vm))
    assert list(Drive.objects.values_list("name", flat=True)) == ["web-data"]


def test_a_vm_can_leave_all_drives_behind(vm: VM) -> None:
    done(services.delete_vm(vm, keep_drives=True))
    assert Drive.objects.count() == 2


def test_a_vm_with_snapshots_is_deleted_only_with_them(vm: VM) -> None:
    taken(vm, "monday")
    make_snapshot(drive=drives_of(vm)[0], name="alone")
    with pytest.raises(Conflict, match="has snapshots") as caught:
        services.delete_vm(vm)
    assert caught.value.extra["snapshots"] == ["monday", "alone"]
    assert "--with-snapshots" in caught.value.hint
    done(services.delete_vm(vm, with_snapshots=True))
    left = [kind.objects.count() for kind in (VMSnapshot, Snapshot, Drive)]
    assert left == [0, 0, 0]


def test_drives_that_stay_keep_snapshots_of_their_own(vm: VM) -> None:
    taken(vm, "monday")
    make_snapshot(drive=drives_of(vm)[0], name="alone")
    done(services.delete_vm(vm, keep_drives=True, with_snapshots=True))
    assert list(Snapshot.objects.values_list("name", flat=True)) == ["alone"]
    assert Drive.objects.count() == 2


def test_new_drives_of_a_vm_go_with_it_and_given_ones_do_not() -> None:
    services.create_vm(name="fresh", image=make_image().name)
    assert Drive.objects.get(name="fresh").delete_with_vm
    given = make_drive(name="given")
    services.create_vm(name="other", drive="given")
    given.refresh_from_db()
    assert not given.delete_with_vm

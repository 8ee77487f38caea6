"""Snapshots of drives: a tree of read-only points in time; with real files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from drives import live, services
from drives.models import Consistency, Drive, Snapshot
from images.models import Image
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound
from nexus_site.core.models import Event
from nexus_site.core.steps import Run
from tests.drives.conftest import (
    IMAGE_MIB,
    MIB,
    content,
    done,
    in_storage,
    kinds,
    make,
    part_of_vm,
    run,
    run_killed,
    take,
    write,
)


class Frozen:
    """What drives know of a VM that runs and whose agent answers; says what it was asked."""

    def __init__(self) -> None:
        self.held: list[list[Drive]] = []
        self.holds = False

    def require_rest(self, drive: Drive, what: str) -> None:
        raise Conflict("The VM runs.", code="vm-runs")

    def require_settled(self, drive: Drive) -> None:
        """It runs, so it can be held."""

    @contextmanager
    def hold(self, drives: Sequence[Drive], run: Run) -> Iterator[Consistency]:
        self.held.append(list(drives))
        self.holds = True
        try:
            yield Consistency.FROZEN
        finally:
            self.holds = False


@pytest.fixture
def frozen(monkeypatch: pytest.MonkeyPatch) -> Frozen:
    double = Frozen()
    monkeypatch.setattr(live, "_live", double)
    return double


def test_a_snapshot_keeps_what_was_there(image: Image) -> None:
    drive = make(image, name="web")
    snapshot = take(drive, "before")
    write(drive, "later")
    assert (snapshot.name, snapshot.state, snapshot.drive) == ("before", "ready", drive)
    assert (snapshot.parent, snapshot.consistency) == (None, "at-rest")
    assert snapshot.size_bytes == IMAGE_MIB * MIB
    assert "from the image" in content(snapshot)
    assert "later" in content(drive)
    assert services.file_of(snapshot).stat().st_mode & 0o777 == 0o400
    assert kinds(snapshot) == ["snapshot.created", "snapshot.ready"]
    assert Event.objects.get(kind="snapshot.ready").data["drive_name"] == "web"


def test_snapshots_make_a_tree(image: Image) -> None:
    drive = make(image)
    one = take(drive, "one")
    two = take(drive, "two")
    services.restore(drive, one)
    three = take(drive, "three")
    drive.refresh_from_db()
    assert (two.parent, three.parent, drive.head) == (one, one, three)
    assert set(one.children.all()) == {two, three}


def test_what_goes_on_from_a_deleted_snapshot_goes_on_from_the_one_before(image: Image) -> None:
    drive = make(image)
    one, two, three = take(drive), take(drive), take(drive)
    done(services.delete_snapshot(two))
    three.refresh_from_db()
    assert three.parent == one
    done(services.delete_snapshot(three))
    drive.refresh_from_db()
    assert drive.head == one
    done(services.delete_snapshot(one))
    drive.refresh_from_db()
    assert drive.head is None
    assert in_storage() == ({drive.ref}, set())
    assert kinds(two)[-1] == "snapshot.deleted"
    with pytest.raises(NotFound, match="has been deleted"):
        services.delete_snapshot(two)


def test_a_drive_made_of_a_snapshot_outlives_it(image: Image) -> None:
    drive = make(image)
    snapshot = take(drive)
    clone = make(snapshot=snapshot)
    done(services.delete_snapshot(snapshot))
    clone.refresh_from_db()
    assert (clone.source_snapshot, clone.source_drive) == (None, drive)
    assert "from the image" in content(clone)


def test_restoring_is_exact_and_can_be_repeated(image: Image) -> None:
    drive = make(image)
    before = services.require_file(drive).read_bytes()
    snapshot = take(drive, "before")
    write(drive, "later")
    done(services.resize_drive(drive, 16))
    drive.refresh_from_db()
    for _ in range(2):
        assert services.restore(drive, snapshot) == f"{drive.name} is as in before"
        drive.refresh_from_db()
        assert services.require_file(drive).read_bytes() == before
        assert (drive.size_bytes, drive.head) == (IMAGE_MIB * MIB, snapshot)
    assert Event.objects.filter(kind="drive.restored").count() == 2
    write(drive, "again")
    assert "from the image" in content(snapshot), "the drive has its own copy"


def test_a_drive_is_restored_from_its_own_snapshots_only(image: Image) -> None:
    snapshot = take(make(image, name="web"), "before")
    other = make(image)
    with pytest.raises(Conflict, match="“before” is a snapshot of the drive “web”") as refused:
        services.restore(other, snapshot)
    assert "--from-snapshot before" in refused.value.hint
    Snapshot.objects.update(state=Snapshot.State.MISSING)
    snapshot.refresh_from_db()
    with pytest.raises(Broken, match="The file of the snapshot “before” is missing"):
        services.restore(snapshot.drive, snapshot)


def test_names(image: Image) -> None:
    drive = make(image)
    snapshot, other = take(drive, "old"), take(drive)
    assert services.rename_snapshot(snapshot, "fresh").name == "fresh"
    assert Event.objects.get(kind="snapshot.renamed").data == {"before": "old"}
    for call in (
        lambda: services.rename_snapshot(snapshot, other.name),
        lambda: services.take_snapshot(drive, name="fresh"),
    ):
        with pytest.raises(Conflict, match="There is a snapshot"):
            call()
    with pytest.raises(Invalid, match="cannot be a name"):
        services.take_snapshot(drive, name="No")
    assert services.new_snapshot(drive, name="fresh").name.startswith("fresh-")


def test_a_vm_that_runs_is_held_while_the_copy_is_made(
    image: Image, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    held: list[bool] = []
    copy = services.storage().snapshot

    def looking(*arguments: object) -> object:
        held.append(frozen.holds)
        return copy(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(services.storage(), "snapshot", looking)
    snapshot = take(drive)
    assert (frozen.held, held, frozen.holds) == ([[drive]], [True], False)
    assert snapshot.consistency == "frozen"
    operation = done(services.create_drive(drive=drive))
    assert operation.steps[0]["note"].endswith("frozen by the agent")
    assert frozen.held == [[drive], [drive]]


def test_a_snapshot_that_fails_leaves_nothing(
    image: Image, frozen: Frozen, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    first = take(drive)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(services.storage(), "snapshot", full)
    failed = run(services.take_snapshot(drive))
    assert (failed.state, failed.error["code"]) == ("failed", "disk-full")
    assert not frozen.holds
    drive.refresh_from_db()
    assert (list(drive.snapshots.all()), drive.head) == ([first], first)
    assert in_storage()[1] == {first.ref}


def test_a_cancelled_snapshot_leaves_nothing(image: Image) -> None:
    drive = make(image)
    operation = services.take_snapshot(drive)
    operations.cancel(operation)
    assert run(operation).state == "cancelled"
    assert not Snapshot.objects.exists()


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_while_it_copies_is_made_up_for(
    when: str, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    first = take(drive)
    operation = services.take_snapshot(drive, name="second")
    run_killed(operation, monkeypatch, "snapshot", when=when)
    assert services.check_storage().problems == []
    done(operation)
    second = Snapshot.objects.get(name="second")
    drive.refresh_from_db()
    assert (second.state, second.parent, drive.head) == ("ready", first, second)
    assert in_storage()[1] == {first.ref, second.ref}


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_while_it_deletes_is_made_up_for(
    when: str, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(make(image))
    operation = services.delete_snapshot(snapshot)
    run_killed(operation, monkeypatch, "delete_snapshot", when=when)
    assert services.check_storage().problems == []
    done(operation)
    assert in_storage()[1] == set()
    assert not Snapshot.objects.exists()


def test_snapshots_of_one_instant_are_ready_together(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [services.new_snapshot(make(image)) for _ in range(2)]
    real, copies = services.storage().snapshot, []

    def second_fails(drive_id: str, snapshot_id: str, *more: object) -> None:
        copies.append(real(drive_id, snapshot_id, *more))  # type: ignore[arg-type]
        if len(copies) == 2:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(services.storage(), "snapshot", second_fails)
        with pytest.raises(OSError, match="No space"):
            services.copy_snapshots(rows, Consistency.CRASH)
    assert {row.state for row in Snapshot.objects.all()} == {"creating"}
    for _ in range(2):
        services.copy_snapshots(rows, Consistency.CRASH)
    for row in Snapshot.objects.select_related("drive"):
        assert (row.state, row.consistency, row.parent) == ("ready", "crash", None)
        assert row.drive.head == row


def test_a_part_of_a_vm_snapshot_stays(image: Image) -> None:
    snapshot = take(make(image), "part")
    part_of_vm(snapshot, "whole")
    for call in (services.delete_snapshot, services.discard_snapshot):
        with pytest.raises(Conflict, match="“part” is a part of the VM snapshot “whole”") as no:
            call(snapshot)
        assert no.value.code == "snapshot-of-vm"
    assert services.file_of(snapshot).exists()


def test_a_deletion_that_fails_or_is_called_off_can_be_repeated(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    snapshot = take(make(image))
    cancelled = services.delete_snapshot(snapshot)
    with pytest.raises(Conflict, match="is deleting"):
        services.delete_snapshot(snapshot)
    operations.cancel(cancelled)
    assert run(cancelled).state == "cancelled"

    def refuse(_: str) -> None:
        raise Broken("The disk is read-only.", code="os-error")

    with monkeypatch.context() as patched:
        patched.setattr(services.storage(), "delete_snapshot", refuse)
        assert run(services.delete_snapshot(snapshot)).state == "failed"
    snapshot.refresh_from_db()
    assert snapshot.state == "ready"
    done(services.delete_snapshot(snapshot))

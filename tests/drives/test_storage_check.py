"""Database and disk held against each other, and repaired only when told."""

from __future__ import annotations

from pathlib import Path

import pytest

from drives import services
from drives.models import Drive, Snapshot
from drives.services import storage_check
from images.models import Image
from nexus_site.core.errors import Broken, Conflict
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Event, Operation
from nexus_site.core.operations import rehearse
from tests.drives.conftest import (
    IMAGE_MIB,
    MIB,
    attached,
    done,
    in_storage,
    make,
    part_of_vm,
    run,
    take,
)


def problems() -> dict[str, str]:
    """What a check finds: kind by subject."""
    return {problem.subject: problem.kind for problem in services.check_storage().problems}


def repair() -> Operation:
    """Repairs; afterwards all is well."""
    operation = done(services.repair_storage())
    assert services.check_storage().problems == []
    return operation


def unknown() -> str:
    return str(NexusID.random())


def test_all_is_well(image: Image) -> None:
    drive = make(image)
    take(drive)
    make(drive=drive)
    report = services.check_storage()
    assert (report.problems, report.drives, report.snapshots) == ([], 2, 1)
    assert repair().steps[0]["note"] == "nothing is wrong"


def test_files_without_rows(image: Image) -> None:
    drive = make(image)
    orphan, orphan_snapshot = unknown(), unknown()
    services.storage().create(orphan, MIB)
    services.storage().snapshot(drive.ref, orphan_snapshot)
    assert problems() == {orphan: "orphan-drive", orphan_snapshot: "orphan-snapshot"}
    assert in_storage() == ({drive.ref, orphan}, {orphan_snapshot}), "a check changes nothing"
    assert repair().result["repaired"] == 2
    assert in_storage() == ({drive.ref}, set())


def test_rows_without_files(image: Image) -> None:
    drive, kept = make(image, name="web"), make(image)
    snapshot = take(kept, "before")
    services.storage().delete(drive.ref)
    services.storage().delete_snapshot(snapshot.ref)
    assert problems() == {drive.ref: "missing-drive", snapshot.ref: "missing-snapshot"}
    texts = [problem.text for problem in services.check_storage().problems]
    assert texts == [
        "The drive “web” has lost its file.",
        "The snapshot “before” has lost its file.",
    ]
    repair()
    for row in (drive, snapshot):
        row.refresh_from_db()
        assert row.state == "missing"
    with pytest.raises(Broken, match="missing"):
        services.create_drive(snapshot=snapshot)
    done(services.delete_drive(drive))
    done(services.delete_snapshot(snapshot))


def test_a_file_that_comes_back(image: Image) -> None:
    """From a backup, say."""
    drive = make(image)
    path = services.require_file(drive)
    elsewhere = path.rename(path.parent.parent / "backup")
    repair()
    elsewhere.rename(path)
    assert problems() == {drive.ref: "missing-drive"}
    repair()
    drive.refresh_from_db()
    services.require_file(drive)


def test_wrong_sizes(image: Image) -> None:
    drive = make(image)
    snapshot = take(drive)
    Drive.objects.update(size_bytes=MIB)
    Snapshot.objects.update(size_bytes=MIB)
    assert problems() == {drive.ref: "wrong-size", snapshot.ref: "wrong-size"}
    repair()
    for row in (drive, snapshot):
        row.refresh_from_db()
        assert row.size_bytes == IMAGE_MIB * MIB
    event = Event.objects.get(kind="drive.resized")
    assert event.data == {"size_bytes": IMAGE_MIB * MIB, "before": MIB}


def test_what_is_half_made_and_of_no_use_goes(image: Image) -> None:
    drive, half = make(image), services.new_drive(image)
    services.storage().clone_image(image.ref, half.ref)
    half_snapshot = services.new_snapshot(drive)
    assert problems() == {half.ref: "stuck", half_snapshot.ref: "stuck"}
    repair()
    assert list(Drive.objects.all()) == [drive]
    assert in_storage() == ({drive.ref}, set())


def test_what_is_half_deleted_or_in_use_stays(image: Image) -> None:
    """Nothing is lost that somebody may want; it can be deleted again."""
    kept, gone, used = make(image), make(image), make(image)
    snapshot, part = take(kept), take(kept)
    services.storage().delete(gone.ref)
    attached(used)
    part_of_vm(part, "whole")
    Drive.objects.filter(pk__in=[kept.pk, gone.pk]).update(state=Drive.State.DELETING)
    Drive.objects.filter(pk=used.pk).update(state=Drive.State.CREATING)
    Snapshot.objects.filter(pk=snapshot.pk).update(state=Snapshot.State.DELETING)
    Snapshot.objects.filter(pk=part.pk).update(state=Snapshot.State.CREATING)
    rows = (kept, gone, used, snapshot, part)
    assert problems() == {row.ref: "stuck" for row in rows}
    repair()
    for row in rows:
        row.refresh_from_db()
    assert [row.state for row in rows] == ["ready", "missing", "ready", "ready", "ready"]


def test_leftovers(image: Image) -> None:
    services.storage()
    leftover = Path(services.storage().describe().directory) / "somebody-was-here"
    leftover.write_text("?")
    assert problems() == {str(leftover): "leftover"}
    repair()
    assert not leftover.exists()


@pytest.mark.parametrize("spoken_of", ["subject", "params", "context"])
def test_what_an_operation_works_on_is_left_alone(spoken_of: str, image: Image) -> None:
    drive, half, orphan = make(image), services.new_drive(image), unknown()
    snapshot = take(drive)
    services.storage().create(orphan, MIB)
    Drive.objects.filter(pk=drive.pk).update(size_bytes=MIB)
    services.storage().delete_snapshot(snapshot.ref)
    assert len(problems()) == 4
    operation = services.repair_storage()
    refs = [drive.ref, {"made": half.ref}, [orphan]]
    if spoken_of == "subject":
        Operation.objects.filter(pk=operation.pk).update(subject_id=drive.pk)
        assert set(problems()) == {half.ref, orphan}, "a drive's snapshots are left alone too"
    else:
        Operation.objects.filter(pk=operation.pk).update(**{spoken_of: {"of": refs}})
        assert problems() == {}
    Operation.objects.filter(pk=operation.pk).update(state=Operation.State.FAILED)
    assert len(problems()) == 4


def test_drives_of_a_vm_that_something_works_on_are_left_alone(image: Image) -> None:
    drive = make(image)
    vm = attached(drive)
    Drive.objects.update(size_bytes=MIB)
    operation = services.repair_storage()
    Operation.objects.filter(pk=operation.pk).update(subject_kind="vm", subject_id=vm.pk)
    assert problems() == {}


def test_what_ends_while_one_looks_is_no_problem(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deletion that is through between the look at the files and the look at the rows."""
    drive = make(image)
    looks: list[int] = []
    busy = storage_check._busy

    def meanwhile() -> set[str]:
        if not looks:
            services.discard(drive)
        looks.append(1)
        return busy()

    monkeypatch.setattr(storage_check, "_busy", meanwhile)
    assert services.check_storage().problems == []
    assert len(looks) == 2, "the first look found an orphan, the second did not"


def test_one_that_cannot_be_repaired_does_not_stop_the_others(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    orphan, half = unknown(), services.new_drive(image)
    services.storage().create(orphan, MIB)
    delete = services.storage().delete

    def refuse(drive_id: str) -> None:
        if drive_id == orphan:
            raise OSError(30, "Read-only file system")
        delete(drive_id)

    with monkeypatch.context() as patched:
        patched.setattr(services.storage(), "delete", refuse)
        failed = run(services.repair_storage())
    assert failed.error["text"] == "1 of 2 problems could not be repaired."
    assert orphan in failed.error["detail"]
    assert not Drive.objects.filter(pk=half.pk).exists()
    assert problems() == {orphan: "orphan-drive"}


def test_one_repair_at_a_time_and_a_rehearsal_changes_nothing(image: Image) -> None:
    services.storage().create(unknown(), MIB)
    plan = rehearse(services.repair_storage)
    assert [step["action"] for step in plan["steps"]] == ["run"]
    assert not Operation.objects.exists()
    services.repair_storage()
    for call in (services.repair_storage, lambda: services.init_pool(1024)):
        with pytest.raises(Conflict, match="The storage is busy: Repair the storage"):
            call()


def test_the_status_names_every_drive_and_what_it_takes(image: Image) -> None:
    drive = make(image, name="web", size_mib=20)
    take(drive, "before")
    lost = make(image, name="lost")
    services.storage().delete(lost.ref)
    status = services.storage_status()
    assert status.description.backend == services.storage().name
    assert [cost.row.name for cost in status.drives] == ["lost", "web"]
    assert status.drives[0].usage is None
    usage = status.drives[1].usage
    assert usage is not None
    assert usage.size_bytes == 20 * MIB
    assert 0 < usage.used_bytes < 20 * MIB
    assert (status.totals.drives, status.totals.snapshots) == (2, 1)
    assert status.totals.size_bytes == 40 * MIB
    assert 0 < status.capacity.free_bytes <= status.capacity.total_bytes

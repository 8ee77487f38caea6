"""Drives: made of anything, renamed, grown and deleted; with real files."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from drives import services
from drives.models import Drive, Snapshot
from images.models import Image
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError, NotFound
from nexus_site.core.models import Event, Operation
from tests.drives.conftest import (
    IMAGE_MIB,
    MIB,
    attached,
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
from tests.images.formats.ext4_images import debugfs
from vms.models import VM
from vms.states import State

# Making


def test_a_drive_of_an_image(image: Image) -> None:
    drive = make(image, name="web")
    assert (drive.name, drive.state, drive.origin) == ("web", "ready", "image")
    assert (drive.image, drive.size_bytes) == (image, IMAGE_MIB * MIB)
    assert "from the image" in content(drive)
    assert kinds(drive) == ["drive.created", "drive.ready"]


def test_a_larger_drive_of_an_image_has_a_larger_file_system(image: Image) -> None:
    drive = make(image, size_mib=20)
    assert services.require_file(drive).stat().st_size == drive.size_bytes == 20 * MIB
    assert f"Block count:              {20 * MIB // 1024}" in debugfs(
        services.require_file(drive), "stats -h"
    )


def test_an_empty_drive_is_an_ext4_file_system(image: Image) -> None:
    drive = make(name="data", size_mib=16)
    assert (drive.origin, drive.image, drive.size_bytes) == ("empty", None, 16 * MIB)
    assert "lost+found" in debugfs(services.require_file(drive), "ls -p /")
    assert "Filesystem volume name:   data" in debugfs(services.require_file(drive), "stats -h")


def test_a_clone_is_what_the_drive_is_now_and_goes_its_own_way(image: Image) -> None:
    drive = make(image)
    write(drive, "mine")
    clone = make(drive=drive, name="copy", delete_with_vm=True)
    assert (clone.origin, clone.source_drive, clone.source_snapshot) == ("drive", drive, None)
    assert (clone.image, clone.delete_with_vm) == (image, True)
    write(drive, "changed")
    assert "mine" in content(clone)
    assert list(services.made_of(drive)) == [clone]


def test_a_drive_of_a_snapshot_is_what_the_drive_was(image: Image) -> None:
    drive = make(image)
    snapshot = take(drive)
    write(drive, "later")
    old = make(snapshot=snapshot, size_mib=12)
    assert (old.origin, old.source_snapshot, old.source_drive) == ("snapshot", snapshot, drive)
    assert "from the image" in content(old)
    assert services.require_file(old).stat().st_size == old.size_bytes == 12 * MIB


def test_one_source_or_a_size(image: Image) -> None:
    drive = make(image)
    for given in ({}, {"image": image, "drive": drive}, {"name": "x"}):
        with pytest.raises(Invalid, match="one of image, drive and snapshot"):
            services.create_drive(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("source", ["image", "drive", "snapshot"])
def test_no_drive_is_smaller_than_its_source(source: str, image: Image) -> None:
    drive = make(image)
    sources = {"image": image, "drive": drive, "snapshot": take(drive)}
    with pytest.raises(Invalid, match=f"at least {IMAGE_MIB} MiB; {IMAGE_MIB - 1}") as refused:
        services.create_drive(**{source: sources[source]}, size_mib=IMAGE_MIB - 1)  # type: ignore[arg-type]
    assert refused.value.code == "drive-too-small"
    assert Drive.objects.count() == 1


@pytest.mark.parametrize("size_mib", [0, 16 * MIB + 1])
def test_no_drive_is_beyond_what_can_be(size_mib: int, image: Image) -> None:
    with pytest.raises(Invalid, match="1 MiB to 16 TiB"):
        services.create_drive(size_mib=size_mib)


def test_names_are_unique_and_generated(image: Image) -> None:
    make(image, name="web")
    with pytest.raises(Conflict, match="There is a drive “web” already"):
        services.create_drive(image=image, name="web")
    with pytest.raises(Invalid, match="cannot be a name"):
        services.create_drive(image=image, name="Web")
    assert make(image).name != make(image).name
    assert services.new_drive(image, name="web").name.startswith("web-")


def test_what_is_not_ready_is_not_copied(image: Image) -> None:
    drive = make(image)
    services.delete_drive(drive)
    with pytest.raises(Conflict, match="is busy: Delete drive"):
        services.create_drive(drive=drive)
    Drive.objects.update(state=Drive.State.MISSING)
    Operation.objects.all().delete()
    with pytest.raises(Broken, match="The file of the drive"):
        services.create_drive(drive=drive)


@pytest.mark.parametrize("source", ["image", "empty", "drive", "snapshot"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_a_worker_killed_while_it_makes_a_drive_is_made_up_for(
    source: str, when: str, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image, name="first")
    ways: dict[str, tuple[str, Callable[[], Operation]]] = {
        "image": ("clone_image", lambda: services.create_drive(image=image, name="fresh")),
        "empty": ("create", lambda: services.create_drive(size_mib=4, name="fresh")),
        "drive": ("clone_drive", lambda: services.create_drive(drive=drive, name="fresh")),
        "snapshot": (
            "clone_snapshot",
            lambda: services.create_drive(snapshot=take(drive), name="fresh"),
        ),
    }
    method, way = ways[source]
    operation = way()
    run_killed(operation, monkeypatch, method, when=when)
    assert services.check_storage().problems == [], "an operation still works on it"
    done(operation)
    new = Drive.objects.get(name="fresh")
    assert services.require_file(new).stat().st_size == new.size_bytes
    assert in_storage()[0] == {drive.ref, new.ref}


@pytest.mark.parametrize("source", ["image", "empty", "drive", "snapshot"])
def test_a_drive_that_cannot_be_made_leaves_nothing(
    source: str, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    snapshot = take(drive)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    for method in ("clone_image", "create", "clone_drive", "clone_snapshot"):
        monkeypatch.setattr(services.storage(), method, full)
    wishes: dict[str, dict[str, object]] = {
        "image": {"image": image},
        "empty": {"size_mib": 4},
        "drive": {"drive": drive},
        "snapshot": {"snapshot": snapshot},
    }
    failed = run(services.create_drive(**wishes[source]))  # type: ignore[arg-type]
    assert (failed.state, failed.error["code"]) == ("failed", "disk-full")
    assert list(Drive.objects.all()) == [drive]
    assert in_storage() == ({drive.ref}, {snapshot.ref})


def test_a_cancelled_clone_leaves_nothing(image: Image) -> None:
    drive = make(image)
    operation = services.create_drive(drive=drive)
    operations.cancel(operation)
    assert run(operation).state == "cancelled"
    assert list(Drive.objects.all()) == [drive]


# Changing


def test_renaming(image: Image) -> None:
    drive, other = make(image, name="old"), make(image, name="other")
    assert services.rename_drive(drive, "fresh").name == "fresh"
    assert Event.objects.get(kind="drive.renamed").data == {"before": "old"}
    for name, error in (("other", Conflict), ("No", Invalid), (other.ref, Invalid)):
        with pytest.raises(error):
            services.rename_drive(drive, name)
    assert Drive.objects.get(pk=drive.pk).name == "fresh"


def test_whether_it_goes_with_its_vm(image: Image) -> None:
    drive = make(image)
    services.set_delete_with_vm(drive, True)
    assert Drive.objects.get(pk=drive.pk).delete_with_vm
    assert Event.objects.get(kind="drive.changed").data == {"delete_with_vm": True}


def test_a_drive_grows_with_its_file_system(image: Image) -> None:
    drive = make(image)
    operation = done(services.resize_drive(drive, 24))
    assert operation.steps[0]["note"] == "24 MiB"
    drive.refresh_from_db()
    assert services.require_file(drive).stat().st_size == drive.size_bytes == 24 * MIB
    assert f"Block count:              {24 * MIB // 1024}" in debugfs(
        services.require_file(drive), "stats -h"
    )
    assert "from the image" in content(drive)
    event = Event.objects.get(kind="drive.resized")
    assert event.data == {"size_bytes": 24 * MIB, "before": IMAGE_MIB * MIB}
    assert done(services.resize_drive(drive, 24)).steps[0]["note"] == "it has 24 MiB already"


@pytest.mark.parametrize("when", ["before", "after"])
def test_growing_survives_a_killed_worker(
    when: str, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    operation = services.resize_drive(drive, 24)
    run_killed(operation, monkeypatch, "resize", when=when)
    assert services.check_storage().problems == []
    done(operation)
    drive.refresh_from_db()
    assert services.require_file(drive).stat().st_size == drive.size_bytes == 24 * MIB
    assert services.check_storage().problems == []


def test_a_drive_does_not_shrink(image: Image) -> None:
    drive = make(image)
    with pytest.raises(Invalid, match="cannot shrink; 7 MiB") as refused:
        services.resize_drive(drive, 7)
    assert refused.value.code == "drive-too-small"
    with pytest.raises(Invalid, match="16 TiB"):
        services.resize_drive(drive, 17 * MIB)


def test_a_drive_of_a_vm_that_runs_does_not_grow(image: Image) -> None:
    drive = make(image)
    vm = attached(drive, name="hello")
    operation = services.resize_drive(drive, 9)
    VM.objects.filter(pk=vm.pk).update(state=State.READY)
    assert run(operation).error["code"] == "vm-runs", "it was started meanwhile"
    with pytest.raises(Conflict, match="The VM “hello” is ready") as refused:
        services.resize_drive(drive, 9)
    assert refused.value.code == "vm-runs"


# One at a time


def test_a_drive_has_one_operation_at_a_time(image: Image) -> None:
    drive = make(image)
    snapshot = take(drive)
    first = services.resize_drive(drive, 9)
    others: list[Callable[[], object]] = [
        lambda: services.resize_drive(drive, 10),
        lambda: services.delete_drive(drive, with_snapshots=True),
        lambda: services.take_snapshot(drive),
        lambda: services.delete_snapshot(snapshot),
        lambda: services.create_drive(drive=drive),
    ]
    for other in others:
        with pytest.raises(Conflict, match=r"is busy: Resize drive .* \(queued\)") as refused:
            other()
        assert (refused.value.code, refused.value.extra["operation"]) == ("drive-busy", first.ref)
    assert Snapshot.objects.count() == Drive.objects.count() == 1
    done(first)
    done(services.resize_drive(drive, 10))


def test_a_source_stays_as_it_is_while_it_is_copied(image: Image) -> None:
    drive = make(image)
    snapshot = take(drive)
    clones = [services.create_drive(drive=drive), services.create_drive(drive=drive)]
    for refused in (
        lambda: services.resize_drive(drive, 9),
        lambda: services.delete_drive(drive, with_snapshots=True),
    ):
        with pytest.raises(Conflict, match="is being made of it"):
            refused()
    for operation in clones:
        done(operation)
    of_snapshot = services.create_drive(snapshot=snapshot)
    with pytest.raises(Conflict, match="is being made of it"):
        services.delete_snapshot(snapshot)
    done(of_snapshot)
    done(services.delete_snapshot(snapshot))


# Deleting


def test_deleting_gives_everything_back(image: Image) -> None:
    drive = make(image)
    operation = services.delete_drive(drive)
    assert Drive.objects.get(pk=drive.pk).state == "deleting"
    done(operation)
    assert not Drive.objects.exists()
    assert in_storage() == (set(), set())
    assert kinds(drive)[-1] == "drive.deleted"
    with pytest.raises(NotFound, match="has been deleted"):
        services.delete_drive(drive)


def test_an_attached_drive_stays(image: Image) -> None:
    drive = make(image)
    vm = attached(drive, name="hello")
    with pytest.raises(Conflict, match="attached to the VM “hello”") as refused:
        services.delete_drive(drive)
    assert (refused.value.code, refused.value.extra["vm"]) == ("drive-attached", vm.ref)
    with pytest.raises(Conflict, match="attached to the VM “hello”"):
        services.discard(Drive.objects.get(pk=drive.pk))
    services.require_file(drive)


def test_a_drive_with_snapshots_goes_only_with_them(image: Image) -> None:
    drive = make(image, name="web")
    snapshots = [take(drive, "one"), take(drive, "two")]
    clone = make(snapshot=snapshots[0])
    for refused in (services.delete_drive, services.discard):
        with pytest.raises(Conflict, match="has snapshots: ") as caught:
            refused(drive)
        assert sorted(caught.value.extra["snapshots"]) == ["one", "two"]
        assert "--with-snapshots" in caught.value.hint
    done(services.delete_drive(drive, with_snapshots=True))
    assert list(Drive.objects.all()) == [clone]
    assert not Snapshot.objects.exists()
    assert in_storage() == ({clone.ref}, set())
    clone.refresh_from_db()
    assert (clone.source_drive, clone.source_snapshot) == (None, None)
    assert "from the image" in content(clone)


def test_a_part_of_a_vm_snapshot_keeps_its_drive(image: Image) -> None:
    drive = make(image)
    part_of_vm(take(drive), "whole")
    for refused in (services.delete_drive, services.discard):
        with pytest.raises(Conflict, match="part of the VM snapshot “whole”") as caught:
            refused(drive, with_snapshots=True)
        assert caught.value.extra == {"vm_snapshots": ["whole"]}
    services.require_file(drive)


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["delete", "delete_snapshot"])
def test_a_deletion_survives_a_killed_worker(
    when: str, method: str, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    take(drive)
    operation = services.delete_drive(drive, with_snapshots=True)
    run_killed(operation, monkeypatch, method, when=when)
    assert services.check_storage().problems == []
    done(operation)
    assert in_storage() == (set(), set())
    assert not Drive.objects.exists()


def test_a_deletion_that_fails_or_is_called_off_can_be_repeated(
    image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    drive = make(image)
    cancelled = services.delete_drive(drive)
    operations.cancel(cancelled)
    assert run(cancelled).state == "cancelled"
    services.require_file(Drive.objects.get(pk=drive.pk))

    def refuse(_: str) -> None:
        raise Broken("The disk is read-only.", code="os-error")

    with monkeypatch.context() as patched:
        patched.setattr(services.storage(), "delete", refuse)
        assert run(services.delete_drive(drive)).state == "failed"
    assert Drive.objects.get(pk=drive.pk).state == "ready"
    done(services.delete_drive(drive))


def test_a_missing_drive_says_so_and_can_be_deleted(image: Image) -> None:
    drive = make(image)
    services.require_file(drive).unlink()
    with pytest.raises(Broken, match="is missing"):
        services.require_file(drive)
    failed = run(services.create_drive(drive=drive))
    assert (failed.state, failed.error["kind"]) == ("failed", NotFound.__name__)
    Drive.objects.filter(pk=drive.pk).update(state=Drive.State.MISSING)
    drive.refresh_from_db()
    for use in (
        lambda: services.require_file(drive),
        lambda: services.take_snapshot(drive),
        lambda: services.resize_drive(drive, 9),
    ):
        with pytest.raises(NexusError) as refused:
            use()
        assert refused.value.code == "drive-missing"
    done(services.delete_drive(drive))
    assert not Drive.objects.exists()

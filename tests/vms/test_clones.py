"""VMs made of other VMs, or of what they were."""

from __future__ import annotations

from pathlib import Path

import pytest

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core import operations
from nexus_site.core.errors import Broken, Conflict, Invalid
from tests.vms.real_drives import (
    Killed,
    carry_out,
    die_once,
    done,
    drives_of,
    read,
    resume,
    taken,
    write,
)
from vms import services
from vms.models import VM

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


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


def test_an_undoing_that_was_cut_short_is_finished(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    operation = services.clone_vm(vm, name="copy")
    operations.cancel(operation)
    die_once(monkeypatch, "discard")
    with pytest.raises(Killed):
        operations.execute(operation.id)
    assert not VM.objects.filter(name="copy").exists()
    resume(operation)
    assert operation.ended
    assert not Drive.objects.filter(name__startswith="copy").exists()

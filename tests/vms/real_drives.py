"""Drives with a file, and what tests do with them and with operations on them."""

from __future__ import annotations

from datetime import timedelta

import pytest
from django.utils import timezone

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core import operations
from nexus_site.core.models import Operation
from tests.factories import make_drive
from vms import services
from vms.models import VM, Attachment, VMSnapshot
from vms.states import State

SIZE = 1 << 20


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


def make_running(vm: VM) -> VM:
    VM.objects.filter(pk=vm.pk).update(state=State.READY)
    vm.refresh_from_db()
    return vm


class Killed(BaseException):
    """As good as SIGKILL: nothing of the worker's clean-up runs."""


def die_once(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """The worker is killed when it calls the service ``name`` of drives for the first time."""
    real = getattr(drive_services, name)

    def die(*_: object, **__: object) -> None:
        monkeypatch.setattr(drive_services, name, real)
        raise Killed

    monkeypatch.setattr(drive_services, name, die)


def resume(operation: Operation) -> None:
    """What a new worker does with what a dead one left."""
    Operation.objects.update(lease_until=timezone.now() - timedelta(seconds=1))
    carry_out(operation)

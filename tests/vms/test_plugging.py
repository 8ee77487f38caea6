"""Drives that come and go while a VM runs, with a VMM and an agent that only write down."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drives.models import Drive
from guest_agent.messages import GuestDisk
from images import services as image_services
from images.models import Kernel
from nexus_site.core.errors import Conflict
from tests.factories import make_drive
from tests.vms.real_drives import SIZE, Killed, carry_out, done, make_running, resume
from vms import plugging, services, supervision
from vms.hypervisors.base import Disk, Handle
from vms.models import VM, Attachment, Boot
from vms.services import drives as drives_of_vms

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


class Machine:
    """A driver, and an agent, of one VM that runs."""

    def __init__(self, vm: VM) -> None:
        self.booted_with = {a.drive.ref for a in vm.attachments.all()}
        self.disks: set[str] = set()
        self.modules: list[str] = []
        self.used_by: tuple[str, ...] = ()
        self.blind = False
        self.dies = False

    def adopt(self, vm_dir: Path) -> Handle:
        return Handle(vm_dir, 1, 1, 2, 2, "tcg")

    def hotplug_problem(self, vm_dir: Path, disk_name: str = "") -> str:
        return "It was started with it." if disk_name in self.booted_with else ""

    def plug(self, handle: Handle, disk: Disk) -> None:
        assert disk.path.exists()
        self.disks.add(disk.name)
        self._die()

    def unplug(self, handle: Handle, disk_name: str) -> None:
        self.disks.discard(disk_name)
        self._die()

    def _die(self) -> None:
        if self.dies:
            self.dies = False
            raise Killed

    def with_agent(self, vm: VM, call: Callable[[Any], Any]) -> Any:
        coroutine = call(self)
        try:
            coroutine.send(None)
        except StopIteration as answered:
            return answered.value
        raise AssertionError("it waits for nothing")

    async def find_disk(self, serial: str) -> GuestDisk:
        return GuestDisk("/dev/sda" if serial in self.disks and not self.blind else "", ())

    async def release_disk(self, serial: str) -> GuestDisk:
        return GuestDisk("/dev/sda", self.used_by)


@pytest.fixture
def machine(vm: VM, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(make_running(vm))
    kernel = Kernel.objects.create(name="otter", version="1", arch="x86_64", size_bytes=1)
    Boot.objects.create(vm=vm, number=1, kernel=kernel)
    for module in (plugging, drives_of_vms):
        monkeypatch.setattr(module, "driver_of", lambda _: machine)
    monkeypatch.setattr(supervision, "_supervisor", machine)
    monkeypatch.setattr(image_services, "hotplug_modules", lambda _: [])
    return machine


@pytest.fixture
def spare(db: None) -> Drive:
    from drives import services as drive_services

    drive = make_drive(name="spare", size_bytes=SIZE)
    drive_services.storage().create(drive.ref, SIZE)
    return drive


def attach(vm: VM, drive: Drive) -> Any:
    vm.refresh_from_db()
    return services.attach_drive(vm, drive, is_root=False)


def test_a_drive_is_plugged_and_unplugged(vm: VM, machine: Machine, spare: Drive) -> None:
    assert services.hotplug_problem(vm) == ""
    operation = done(attach(vm, spare))
    assert machine.disks == {spare.ref}
    assert operation.steps[-1]["note"] == "it is /dev/sda there"
    done(services.detach_drive(spare))
    assert machine.disks == set()
    assert not Attachment.objects.filter(drive=spare).exists()


def test_a_drive_that_the_guest_uses_stays(vm: VM, machine: Machine, spare: Drive) -> None:
    done(attach(vm, spare))
    machine.used_by = ("/mnt", "/srv")
    operation = carry_out(services.detach_drive(spare))  # type: ignore[arg-type]
    assert (operation.state, operation.error["code"]) == ("failed", "drive-mounted")
    assert "/mnt, /srv" in operation.error["text"]
    assert machine.disks == {spare.ref}
    assert Attachment.objects.filter(drive=spare, vm=vm).exists()


def test_a_drive_that_the_guest_does_not_find_is_taken_out_again(
    vm: VM, machine: Machine, spare: Drive, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plugging, "SEEN_SECONDS", 0.2)
    machine.blind = True
    operation = carry_out(attach(vm, spare))
    assert (operation.state, operation.error["code"]) == ("failed", "drive-not-seen")
    assert machine.disks == set()
    assert not Attachment.objects.filter(drive=spare).exists()


def test_a_drive_that_the_vm_was_started_with_is_not_unplugged(vm: VM, machine: Machine) -> None:
    for attachment in vm.attachments.all():
        with pytest.raises(Conflict, match="cannot lose") as caught:
            services.detach_drive(attachment.drive)
        assert caught.value.detail == "It was started with it."


def test_a_killed_worker_is_followed_by_one_that_ends_the_work(
    vm: VM, machine: Machine, spare: Drive
) -> None:
    machine.dies = True
    operation = attach(vm, spare)
    with pytest.raises(Killed):
        carry_out(operation)
    resume(operation)
    assert (operation.state, machine.disks) == ("succeeded", {spare.ref})
    operation = services.detach_drive(spare)
    assert operation is not None
    machine.dies = True
    with pytest.raises(Killed):
        carry_out(operation)
    resume(operation)
    assert (operation.state, machine.disks) == ("succeeded", set())
    assert not Attachment.objects.filter(drive=spare).exists()


def test_a_vm_that_was_started_with_it_meanwhile_has_it(
    vm: VM, machine: Machine, spare: Drive
) -> None:
    operation = attach(vm, spare)
    machine.booted_with.add(spare.ref)
    done(operation)
    assert [step["state"] for step in operation.steps] == ["skipped"] * 3
    assert Attachment.objects.filter(drive=spare, vm=vm).exists()

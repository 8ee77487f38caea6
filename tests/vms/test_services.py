"""The rules about VMs: what may be asked when, and what is said when it may not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from django.utils import timezone

from drives.models import Drive
from images import services as image_services
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound
from nexus_site.core.models import Event, Operation
from nexus_site.core.operations import rehearse
from tests.factories import make_drive, make_image, make_vm
from vms import lifecycle, paths, services, shortcuts
from vms.models import VM, Attachment, Boot
from vms.paths import make_vm_dir
from vms.states import ALIVE, AT_REST, State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


def test_a_vm_from_a_distribution_is_one_operation_with_eight_steps() -> None:
    operation = shortcuts.from_rootfs("vm", "alpine", "3.23", name="hello")
    assert [step["name"] for step in operation.steps] == [
        "rootfs", "template", "build", "image", "drive", "vm", "start", "agent",
    ]  # fmt: skip
    assert (operation.kind, operation.subject_name) == ("vm.from-rootfs", "hello")
    assert operation.params["mem_size_mib"] == services.USUAL["mem_size_mib"]


@pytest.mark.parametrize(("distro", "version"), [("slackware", "15"), ("plan9", "4")])
def test_an_unknown_distribution_is_answered_with_those_available(
    distro: str, version: str
) -> None:
    with pytest.raises(NotFound, match="no root file system") as caught:
        shortcuts.from_rootfs("vm", distro, version)
    assert "alpine 3.23" in caught.value.hint


def test_a_name_is_promised_to_the_first_who_asks() -> None:
    shortcuts.from_rootfs("vm", "alpine", "3.23", name="hello")
    with pytest.raises(Conflict, match="There is a VM “hello” already"):
        shortcuts.from_rootfs("vm", "alpine", "3.23", name="hello")


@pytest.mark.parametrize("name", ["Hello", "a_b", "-x", "aaaaaaaaaayds", "x" * 64])
def test_a_bad_name_is_refused_naming_the_rule(name: str) -> None:
    with pytest.raises(Invalid, match="cannot be a name"):
        shortcuts.from_rootfs("vm", "alpine", "3.23", name=name)


def test_a_vm_larger_than_the_host_is_refused_with_the_hosts_numbers() -> None:
    cpus, memory = psutil.cpu_count() or 1, psutil.virtual_memory().total >> 20
    with pytest.raises(Invalid, match=f"1 to {cpus} CPUs"):
        shortcuts.from_rootfs("vm", "alpine", "3.23", vcpu_count=cpus + 1)
    with pytest.raises(Invalid, match=f"to {memory} MiB"):
        shortcuts.from_rootfs("vm", "alpine", "3.23", mem_size_mib=memory + 1)
    with pytest.raises(Invalid, match="64 to"):
        shortcuts.from_rootfs("vm", "alpine", "3.23", mem_size_mib=1)


def test_a_vm_from_an_image_has_a_new_root_drive_at_once() -> None:
    image = make_image()
    services.create_vm(name="web", image=image.name)
    vm = VM.objects.get(name="web")
    attachment = vm.attachments.get()
    assert attachment.is_root
    assert (attachment.drive.image, attachment.drive.state) == (image, Drive.State.CREATING)
    assert vm.mac.startswith("52:54:00:")
    assert [row.to_state for row in vm.history.all()] == [State.CREATED]


def test_a_vm_takes_an_image_or_a_drive_not_both_nor_neither() -> None:
    for given in ({}, {"image": "a", "drive": "b"}):
        with pytest.raises(Invalid, match="either an image or a drive"):
            services.create_vm(**given)


def test_start_records_the_wish_and_moves_at_once() -> None:
    vm = make_vm()
    operation = services.start_vm(vm)
    row = vm.history.last()
    assert row is not None
    assert (vm.state, vm.desired_state) == (State.STARTING, "running")
    assert (row.reason, row.operation_id) == ("start requested", operation.id)


@pytest.mark.parametrize("state", sorted(set(State) - AT_REST))
def test_a_vm_that_runs_cannot_be_started(state: State) -> None:
    with pytest.raises(Conflict, match=f"is {state.value}"):
        services.start_vm(make_vm(state=state))


def test_a_vm_without_root_drive_cannot_be_started() -> None:
    with pytest.raises(Conflict, match="no root drive"):
        services.start_vm(make_vm(root=False))


@pytest.mark.parametrize("state", sorted(ALIVE | {State.STARTING}))
def test_a_vm_that_runs_can_be_stopped(state: State) -> None:
    vm = make_vm(state=state)
    operation = services.stop_vm(vm)
    assert (vm.state, vm.desired_state, operation.kind) == (State.STOPPING, "stopped", "vm.stop")


@pytest.mark.parametrize("state", sorted(AT_REST - {State.SUSPENDED}))
def test_there_is_nothing_to_stop_at_rest(state: State) -> None:
    with pytest.raises(Conflict, match="nothing to stop"):
        services.stop_vm(make_vm(state=state))


def test_stopping_a_vm_that_starts_cancels_its_start() -> None:
    vm = make_vm()
    start = services.start_vm(vm)
    services.stop_vm(vm)
    start.refresh_from_db()
    assert start.cancel_requested


def test_a_stop_that_went_wrong_can_be_asked_for_again() -> None:
    vm = make_vm(state=State.STOPPING)
    assert services.stop_vm(vm, force=True).params["force"]


def test_a_busy_vm_names_the_operation_it_is_busy_with() -> None:
    vm = make_vm()
    operation = services.delete_vm(vm)
    with pytest.raises(Conflict, match="busy: Delete VM") as caught:
        services.start_vm(vm)
    assert caught.value.extra["operation"] == operation.ref


def test_restart_is_for_running_vms() -> None:
    with pytest.raises(Conflict, match="only a running VM"):
        services.restart_vm(make_vm())
    operation = services.restart_vm(make_vm(state=State.READY))
    names = [step["name"] for step in operation.steps]
    assert names == ["shutdown", "end", "start", "storage", "kernel", "launch", "agent"]


def test_a_running_vm_is_deleted_only_by_force() -> None:
    vm = make_vm(state=State.READY)
    with pytest.raises(Conflict, match="is ready"):
        services.delete_vm(vm)
    services.delete_vm(vm, force=True)
    assert vm.state == State.STOPPING


def test_a_rename_is_checked_and_recorded() -> None:
    vm, other = make_vm(name="old"), make_vm(name="other")
    with pytest.raises(Conflict):
        services.rename_vm(vm, other.name)
    services.rename_vm(vm, "fresh")
    assert Event.objects.get(kind="vm.renamed").data == {"before": "old"}


def test_a_running_vm_keeps_its_size() -> None:
    with pytest.raises(Conflict, match="at rest"):
        services.update_vm(make_vm(state=State.READY), mem_size_mib=128)
    assert services.update_vm(make_vm(), mem_size_mib=128).mem_size_mib == 128


def test_a_drive_is_attached_as_root_by_default_and_to_one_vm_only() -> None:
    vm, drive = make_vm(root=False), make_drive()
    assert services.attach_drive(vm, drive) is None
    assert vm.attachments.get().is_root
    with pytest.raises(Conflict, match=f"attached to the VM “{vm.name}”"):
        services.attach_drive(make_vm(root=False), drive)


def test_a_second_root_drive_is_refused_a_data_drive_is_not() -> None:
    vm = make_vm()
    with pytest.raises(Conflict, match="root drive already"):
        services.attach_drive(vm, make_drive())
    services.attach_drive(vm, make_drive(), is_root=False)
    assert not vm.attachments.last().is_root


def test_drives_stay_while_the_vm_runs_without_a_controller_for_them() -> None:
    vm = make_vm(state=State.READY)
    drive = Attachment.objects.get(vm=vm).drive
    with pytest.raises(Conflict, match="cannot lose"):
        services.detach_drive(drive)
    with pytest.raises(Conflict, match="cannot take"):
        services.attach_drive(vm, make_drive(), is_root=False)


def test_a_dry_run_of_a_start_changes_nothing() -> None:
    vm = make_vm()
    plan = rehearse(lambda: services.start_vm(vm))
    assert [row["name"] for row in plan["steps"]] == ["storage", "kernel", "launch", "agent"]
    assert VM.objects.get().state == State.CREATED
    assert not Operation.objects.exists()


def test_a_dry_run_of_the_whole_chain_says_what_is_there_already() -> None:
    plan = rehearse(lambda: shortcuts.from_rootfs("vm", "alpine", "3.23", name="hello"))
    assert {row["action"] for row in plan["steps"]} == {"run"}
    assert not Operation.objects.exists()


def test_generated_names_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    make: Callable[[], Operation] = lambda: shortcuts.from_rootfs("vm", "alpine", "3.23")  # noqa: E731
    assert make().subject_name != make().subject_name


def test_a_vm_goes_only_when_nothing_is_mounted_in_its_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    vm = make_vm(name="web")
    directory = make_vm_dir(vm)
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 1 8:1 /disk {directory}/jail\\040one/disk0 rw - ext4 /dev/sda rw\n")
    monkeypatch.setattr(paths, "MOUNTS", mounts)
    with pytest.raises(Broken, match="still mounted") as refused:
        lifecycle.remove(vm)
    assert f"umount '{directory}/jail one/disk0'" in refused.value.hint
    assert (directory.exists(), VM.objects.count()) == (True, 1)
    mounts.write_text(f"1 1 8:1 / {directory}-other/disk0 rw - ext4 /dev/sda rw\n")
    lifecycle.remove(vm)
    assert (directory.exists(), VM.objects.count()) == (False, 0)


def test_every_driver_cleans_up_before_a_vm_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    cleaned: list[str] = []

    class Driver:
        def __init__(self, name: str) -> None:
            self.name = name

        def cleanup(self, directory: Path) -> None:
            assert directory.exists()
            cleaned.append(self.name)

    monkeypatch.setattr(lifecycle, "driver_for", Driver)
    vm = make_vm()
    make_vm_dir(vm)
    lifecycle.remove(vm)
    assert sorted(cleaned) == ["firecracker", "qemu"]


def test_a_release_that_a_vm_runs_on_is_used() -> None:
    vm = make_vm(name="web", state=State.READY)
    made = {"vm": vm, "hypervisor": "firecracker", "hypervisor_version": "1.12.1"}
    Boot.objects.create(number=1, ended_at=timezone.now(), **made)
    assert image_services.release_users() == {}
    Boot.objects.create(number=2, **made)
    assert image_services.release_users() == {"1.12.1": ["web"]}
    VM.objects.filter(pk=vm.pk).update(state=State.CRASHED)
    assert image_services.release_users() == {}

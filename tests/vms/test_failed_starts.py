"""Starts that cannot work: the VM is ``failed``, says why, and nothing is left behind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from drives import services as drive_services
from images import services as image_services
from images.models import Kernel
from nexus_site.core import operations
from nexus_site.core.models import Operation
from tests.factories import make_kernel, make_vm
from vms import services
from vms.drivers import driver_for
from vms.models import VM, Attachment
from vms.paths import vm_dir

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]


@pytest.fixture(autouse=True)
def _a_driver_of_its_own() -> Iterator[None]:
    """Drivers remember what they found on the host; these tests change the host."""
    driver_for.cache_clear()
    yield
    driver_for.cache_clear()


@pytest.fixture
def vm() -> VM:
    """A VM with an (empty) drive that is really there."""
    vm = make_vm(mem_size_mib=128)
    drive_services.storage().create(Attachment.objects.get(vm=vm).drive.ref, 1 << 20)
    return vm


def start(vm: VM) -> Operation:
    operation = services.start_vm(vm)
    operations.execute(operation.id)
    operation.refresh_from_db()
    vm.refresh_from_db()
    return operation


def broken_kernel() -> Kernel:
    """A kernel that is none."""
    kernel = make_kernel()
    directory = image_services.kernel_dir(kernel)
    good = image_services.kernel_dir(image_services.ensure_default_kernel())
    directory.mkdir(parents=True)
    (directory / "vmlinux").write_bytes(b"this is no kernel" * 1000)
    (directory / "modules.zip").write_bytes((good / "modules.zip").read_bytes())
    return kernel


def assert_nothing_is_left(vm: VM) -> None:
    directory = vm_dir(vm)
    assert not [p for p in psutil.process_iter() if _works_in(p, directory)]
    left = {path.name for path in directory.glob("*")} if directory.exists() else set()
    assert not {name for name in left if name.endswith(".sock")}


def _works_in(process: psutil.Process, directory: Path) -> bool:
    try:
        return process.cwd() == str(directory)
    except psutil.Error:
        return False


def test_without_qemu_the_vm_fails_with_the_command_that_installs_it(
    vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    operation = start(vm)
    assert operation.state == "failed"
    assert operation.error["code"] == "hypervisor-unusable"
    assert "QEMU is not installed" in operation.error["text"]
    assert "install" in operation.error["hint"]
    last = vm.history.last()
    assert last is not None
    assert (vm.state, last.reason) == ("failed", operation.error["text"])
    assert_nothing_is_left(vm)


def test_a_vmm_that_dies_while_starting_leaves_its_last_words(vm: VM) -> None:
    VM.objects.filter(pk=vm.pk).update(kernel=broken_kernel())
    operation = start(vm)
    assert (operation.state, vm.state) == ("failed", "failed")
    last = vm.history.last()
    assert last is not None
    assert "qemu" in last.detail["detail"].lower(), "what QEMU itself said"
    boot = vm.boots.get()
    assert boot.ended_at is not None
    assert_nothing_is_left(vm)


def test_a_drive_whose_file_is_gone_fails_the_start_before_anything_runs(vm: VM) -> None:
    drive_services.storage().delete(Attachment.objects.get(vm=vm).drive.ref)
    operation = start(vm)
    assert operation.error["code"] == "drive-missing"
    assert vm.state == "failed"
    assert not vm.boots.exists()
    assert_nothing_is_left(vm)


def test_a_failed_vm_can_be_started_again_or_deleted(vm: VM) -> None:
    VM.objects.filter(pk=vm.pk).update(kernel=broken_kernel())
    start(vm)
    assert start(vm).state == "failed", "again, not refused"
    assert [boot.number for boot in vm.boots.all()] == [2, 1]
    operation = services.delete_vm(vm)
    operations.execute(operation.id)
    operation.refresh_from_db()
    assert operation.state == "succeeded", operation.error
    assert not VM.objects.exists()
    assert not vm_dir(vm).exists()

"""A host on which images boot in no time, for tests of what goes on from such boots."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from django.conf import settings as django_settings
from django.db.models import QuerySet

from drives import services as drive_services
from drives.models import Drive, Snapshot
from images import services as image_services
from images.models import Image, Kernel
from nexus_site.core.models import Operation
from tests.factories import make_image, make_kernel
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import SIZE, carry_out, done
from vms import lifecycle, services, supervision, warm, warm_wishes, warming
from vms.choice import Choice
from vms.hypervisors.base import AgentSocket, Handle, Probe, VmmSpec
from vms.models import VM, Boot, VMSnapshot, WarmTemplate
from vms.shortcuts import from_image
from vms.states import State
from vms.transitions import move

MIDDLE = SIZE // 2
MEMORIES = Path(django_settings.NEXUS.data_dir) / "memory"


class Host(FakeVmm):
    """Its guests write “booted” to their drives when they boot, and are ready at once."""

    version = "7.2"

    def launch(self, spec: VmmSpec) -> Handle:
        handle = super().launch(spec)
        with spec.disks[0].path.open("r+b") as drive:
            drive.seek(MIDDLE)
            drive.write(b"booted".ljust(16))
        return handle

    def agent_socket(self, directory: Path) -> AgentSocket:
        return AgentSocket(directory / "agent")

    def choose(self, *_: object) -> Choice:
        return Choice(Probe("qemu", True, "tcg", self.version), "a test")

    def get_ready(self, *_: object) -> None:
        for vm in VM.objects.filter(state=State.RUNNING):
            move(vm, State.READY, "it said hello")


def install_host(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Host:
    done(drive_services.repair_storage())  # what other tests have left
    host = Host()
    install(monkeypatch, host)
    make_kernel(is_default=True)
    boot_files = SimpleNamespace(vmlinux="vmlinux", bzimage=None, initrd=None)
    default = Kernel.objects.filter(is_default=True)
    monkeypatch.setattr(image_services, "ensure_default_kernel", default.get)
    monkeypatch.setattr(image_services, "ensure_initrd", lambda kernel: None)
    monkeypatch.setattr(image_services, "boot_files", lambda kernel: boot_files)
    monkeypatch.setattr(warm, "host_tsc_khz", lambda: 2_000_000)
    for module in (lifecycle, warm_wishes, warming):
        monkeypatch.setattr(module, "choose", host.choose)
    monkeypatch.setattr(warm, "foresee", host.choose)
    monkeypatch.setattr(warming, "driver_of", lambda vm: host)
    monkeypatch.setattr(warming, "be_nice", lambda handle: None)
    monkeypatch.setattr(warming, "SETTLE_SECONDS", 0)
    monkeypatch.setattr(warming, "QUIET_SECONDS", 0)
    monkeypatch.setattr(supervision, "wait_for_move", host.get_ready)
    switch(settings, warm_templates=True)
    return host


def switch(settings: Any, **values: Any) -> None:
    settings.NEXUS = django_settings.NEXUS.model_copy(update=values)


def image_with_file(name: str = "alpine") -> Image:
    image = make_image(name=name, size_bytes=SIZE)
    path = image_services.image_path(image)
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(bytes(MIDDLE) + b"image".ljust(MIDDLE))
    return image


def vm_from(image: Image, name: str, **wishes: Any) -> VM:
    done(from_image("vm", image, name=name, **wishes))
    return VM.objects.get(name=name)


def start_of_second(image: Image, *, made_before: bool) -> Operation:
    """What starts ``second``, whose drive is there already or is made by the start."""
    if not made_before:
        return from_image("vm", image, name="second")
    done(services.create_vm(name="second", image=image.name))
    return services.start_vm(VM.objects.get(name="second"))


def on_drive(vm: VM) -> str:
    drive = vm.attachments.get().drive
    with drive_services.storage().drive_path(drive.ref).open("rb") as file:
        file.seek(MIDDLE)
        return file.read(16).strip(b" \0").decode()


def makings() -> QuerySet[Operation]:
    return Operation.objects.filter(kind="warm.make").order_by("created_at")


def make_what_is_wanted() -> Operation:
    operation = makings().last()
    assert operation is not None, "none is being made"
    return carry_out(operation)


def boot_of(vm: VM) -> Boot:
    return vm.boots.get()


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch, settings: Any) -> Host:
    return install_host(monkeypatch, settings)


@pytest.fixture
def image(db: None) -> Image:
    return image_with_file()


@pytest.fixture
def template(host: Host, image: Image) -> WarmTemplate:
    """One of the image, made after its first boot."""
    vm_from(image, "first")
    make_what_is_wanted()
    return WarmTemplate.objects.get()


def hidden() -> list[VM]:
    return list(VM.objects.filter(purpose=VM.Purpose.WARM))


def assert_nothing_is_left() -> None:
    assert not hidden()
    assert not VMSnapshot.objects.exists()
    assert not Snapshot.objects.exists()
    assert not Drive.objects.filter(name__startswith="warm-").exists()
    assert not list(MEMORIES.glob("*"))
    assert not drive_services.check_storage().problems

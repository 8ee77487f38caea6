"""What becomes of the drive of a VM that goes on from a warm template."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from drives import services as drive_services
from drives.models import Drive, Snapshot
from images.models import Image
from nexus_site.core.errors import Conflict, Retryable
from tests.vms.real_drives import carry_out, done
from tests.vms.warm_hosts import (
    Host,
    boot_of,
    host,
    image,
    on_drive,
    start_of_second,
    template,
    vm_from,
)
from vms import lifecycle, services
from vms.hypervisors.base import Handle, VmmSpec
from vms.models import VM, Boot, WarmTemplate
from vms.shortcuts import from_image

__all__ = ["host", "image", "template"]  # fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch, template: WarmTemplate) -> list[str]:
    """What drives are made of, once there is a template."""
    made: list[str] = []
    storage = drive_services.storage()
    for name in ("clone_image", "begin_clone"):
        real = getattr(storage, name)

        def note(*args: object, name: str = name, real: Any = real) -> object:
            made.append(name)
            return real(*args)

        monkeypatch.setattr(storage, name, note)
    return made


def test_a_drive_is_made_once(copies: list[str], image: Image) -> None:
    vm_from(image, "second")
    assert copies == ["begin_clone"]
    done(services.create_vm(name="third", image=image.name, start=True))
    assert copies == ["begin_clone"] * 2
    assert boot_of(VM.objects.get(name="third")).resumed_from == "warm"
    done(services.create_vm(name="fourth", image=image.name))
    assert copies[2:] == ["clone_image"], "nobody has asked for a start"
    vm_from(image, "fifth", cold=True)
    assert copies[3:] == ["clone_image"]


@pytest.mark.parametrize("made_before", [False, True])
def test_a_drive_is_copied_while_the_vmm_comes_up(
    copies: list[str],
    host: Host,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
    *,
    made_before: bool,
) -> None:
    states: list[str] = []
    real = host.restore

    def restore(spec: VmmSpec, directory: Path, *, disks_whole: Callable[[], object]) -> Handle:
        states.append(Drive.objects.get(name="second").state)
        disks_whole()
        states.append(Drive.objects.get(name="second").state)
        return real(spec, directory)

    monkeypatch.setattr(host, "restore", restore)
    done(start_of_second(image, made_before=made_before))
    assert (states, copies[-1]) == (["creating", "ready"], "begin_clone")
    assert on_drive(VM.objects.get(name="second")) == "booted"


def test_of_a_drive_that_was_there_only_what_a_first_guest_changed_is_made_anew(
    template: WarmTemplate, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage, asked = drive_services.storage(), []
    real = storage.begin_clone

    def note(snapshot: str, drive: str, changes: Any) -> Callable[[], object]:
        asked.append(changes)
        return real(snapshot, drive, changes)

    monkeypatch.setattr(storage, "begin_clone", note)
    vm_from(image, "third")  # its drive is made by the start
    done(start_of_second(image, made_before=True))
    changes = Snapshot.objects.get().changes
    assert asked == [None, changes]
    assert bool(changes) == (storage.name == "copy"), "others share their blocks in any case"
    assert not Drive.objects.get(name="second").pristine
    assert on_drive(VM.objects.get(name="second")) == "booted"


def test_a_copy_that_fails_leaves_the_drive_of_the_image(
    copies: list[str], host: Host, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> Callable[[], object]:
        def whole() -> None:
            raise Retryable("There is not enough space on the disk.", code="disk-full")

        return whole

    monkeypatch.setattr(drive_services.storage(), "begin_clone", full)
    vm = vm_from(image, "second")
    assert (boot_of(vm).resumed_from, copies) == ("", ["clone_image"])
    assert WarmTemplate.objects.get().state == WarmTemplate.State.READY, "it is not its fault"


@pytest.mark.parametrize("shortcut", [True, False])
def test_a_start_that_fails_leaves_the_drive_of_the_image(
    copies: list[str],
    host: Host,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
    shortcut: bool,
) -> None:
    def choose(*_: object) -> None:
        raise Conflict("There is no hypervisor.")

    monkeypatch.setattr(lifecycle, "choose", choose)
    if shortcut:
        operation = carry_out(from_image("vm", image, name="second"))
    else:
        operation = carry_out(services.create_vm(name="second", image=image.name, start=True))
    assert operation.state == "failed"
    vm = VM.objects.get(name="second")
    assert (vm.state, vm.attachments.get().drive.state) == ("failed", "ready")
    assert (on_drive(vm), copies) == ("image", ["clone_image"])
    monkeypatch.setattr(lifecycle, "choose", host.choose)
    done(services.start_vm(vm))
    assert boot_of_last(vm).resumed_from == "warm"


def boot_of_last(vm: VM) -> Boot:
    last = vm.boots.first()
    assert last is not None
    return last


def test_one_that_is_gone_by_then_leaves_the_image(
    copies: list[str], template: WarmTemplate, host: Host, image: Image
) -> None:
    WarmTemplate.objects.update(state=WarmTemplate.State.READY, checkpoint=None)
    vm = vm_from(image, "second")
    assert (boot_of(vm).resumed_from, copies) == ("", ["clone_image"])


def test_the_drive_behind_it_takes_no_space(template: WarmTemplate) -> None:
    drive = Drive.objects.get(name__startswith="warm-")
    assert not drive_services.file_of(drive).exists()
    assert not drive_services.check_storage().problems

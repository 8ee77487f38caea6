"""Warm templates that cannot be made or used, and workers that are killed meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from drives import services as drive_services
from drives.models import Drive
from images.models import Image
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel
from tests.vms.real_drives import Killed, carry_out, done, resume
from tests.vms.warm_hosts import (
    Host,
    assert_nothing_is_left,
    boot_of,
    hidden,
    host,
    image,
    make_what_is_wanted,
    makings,
    on_drive,
    start_of_second,
    template,
    vm_from,
)
from vms import outcomes, warm
from vms.hypervisors.base import Handle, VmmSpec
from vms.models import VM, VMSnapshot, WarmTemplate
from vms.paths import checkpoint_memory
from vms.services import warm as warm_services
from vms.shortcuts import from_image

__all__ = ["host", "image", "template"]  # fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


def test_where_it_cannot_be_resumed_the_guest_boots_from_its_image(
    template: WarmTemplate, host: Host, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert template.checkpoint is not None
    (checkpoint_memory(template.checkpoint) / "memory").unlink()
    seen: list[str] = []

    def launch(spec: VmmSpec) -> Handle:
        seen.append(on_drive_of(spec))
        return Host.launch(host, spec)

    monkeypatch.setattr(host, "launch", launch)
    vm = vm_from(image, "second")
    assert seen == ["image"], "what the template left on its drive is gone"
    boot = boot_of(vm)
    assert boot.resumed_from == ""
    assert boot.resumed == ("the warm template could not be resumed: It is not as it was saved.")
    template.refresh_from_db()
    assert (template.state, template.problem) == ("failed", "It is not as it was saved.")
    assert boot_of(vm_from(image, "third")).resumed == "its warm template is of no use"
    done(warm_services.prune_warm_templates())
    assert WarmTemplate.objects.get().problem, "it goes on to say why"
    assert_nothing_is_left()
    assert not warm_services.prunable()


def on_drive_of(spec: Any) -> str:
    return str(spec.disks[0].path.read_bytes().strip(b" \0").decode())


def test_a_worker_killed_while_a_vm_goes_on_from_it_does_it_again(
    template: WarmTemplate, host: Host, image: Image
) -> None:
    operation = killed_at("restore", host, image)
    resume(operation)
    vm = VM.objects.get(name="second")
    assert (vm.state, boot_of(vm).resumed_from, on_drive(vm)) == ("ready", "warm", "booted")


@pytest.mark.parametrize("made_before", [False, True])
def test_a_worker_killed_while_the_drive_is_copied_copies_it_again(
    template: WarmTemplate,
    host: Host,
    image: Image,
    monkeypatch: pytest.MonkeyPatch,
    *,
    made_before: bool,
) -> None:
    storage = drive_services.storage()

    def half(_: str, drive_id: str, __: object) -> Callable[[], object]:
        storage.drive_path(drive_id).write_bytes(bytes(4096))
        return die

    operation = start_of_second(image, made_before=made_before)
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(storage, "begin_clone", half)
        carry_out(operation)
    assert Drive.objects.get(name="second").state == "creating"
    copied: list[object] = []
    real = storage.begin_clone

    def note(snapshot_id: str, drive_id: str, changes: Any) -> Callable[[], object]:
        copied.append(changes)
        return real(snapshot_id, drive_id, changes)

    monkeypatch.setattr(storage, "begin_clone", note)
    resume(operation)
    vm = VM.objects.get(name="second")
    assert (vm.state, boot_of(vm).resumed_from, on_drive(vm)) == ("ready", "warm", "booted")
    assert copied == [None], "what is half made is copied whole"


def test_and_boots_from_the_image_if_it_is_gone_by_then(
    template: WarmTemplate, host: Host, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = killed_at("restore", host, image)
    done(warm_services.delete_warm_template(template))

    def launch(spec: VmmSpec) -> Handle:
        assert on_drive_of(spec) == "image"
        return Host.launch(host, spec)

    monkeypatch.setattr(host, "launch", launch)
    resume(operation)
    vm = VM.objects.get(name="second")
    assert (vm.state, boot_of(vm).resumed_from, boot_of(vm).resumed) == ("ready", "", warm.NONE_YET)


def test_a_worker_killed_once_it_runs_knows_what_it_goes_on_from(
    template: WarmTemplate, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    operation = from_image("vm", image, name="second")
    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(outcomes, "vmm_runs", die)
        carry_out(operation)
    assert boot_of(VM.objects.get(name="second")).resumed_from == "warm"
    resume(operation)
    vm = VM.objects.get(name="second")
    assert (vm.state, boot_of(vm).resumed_from) == ("ready", "warm")
    assert boot_of(vm).resumed == "warm template of alpine"


def die(*_: object) -> None:
    raise Killed


def killed_at(what: str, host: Host, image: Image) -> Operation:
    operation = from_image("vm", image, name="second")
    host.dies_at = what
    with pytest.raises(Killed):
        carry_out(operation)
    host.new_worker()
    return operation


@pytest.mark.parametrize(
    "moment", ["launch", "freeze", "pause", "save", "resume", "complete", "kill"]
)
def test_a_worker_killed_while_it_makes_one_goes_on(host: Host, image: Image, moment: str) -> None:
    vm_from(image, "first")
    host.dies_at = moment
    with pytest.raises(Killed):
        make_what_is_wanted()
    host.new_worker()
    resume(makings().latest("created_at"))
    template = WarmTemplate.objects.get()
    assert template.state == "ready"
    assert len(hidden()) == 1
    assert VMSnapshot.objects.get() == template.checkpoint
    assert not drive_services.check_storage().problems
    assert boot_of(vm_from(image, "second")).resumed_from == "warm"


def test_what_cannot_be_made_leaves_only_the_reason(host: Host, image: Image) -> None:
    first = vm_from(image, "first")
    host.full = True
    assert make_what_is_wanted().state == "failed"
    template = WarmTemplate.objects.get()
    assert (template.state, template.problem) == (
        "failed",
        "There is not enough space on the disk.",
    )
    assert_nothing_is_left()
    assert first.state == "ready"
    assert boot_of(vm_from(image, "second")).resumed == "its warm template is of no use"
    assert warm_services.make_next() is None, "nobody has asked for it"

    host.full = False
    done(warm_services.make_warm_template(image))
    template.refresh_from_db()
    assert (template.state, template.problem) == ("ready", "")
    again = carry_out(warm_services.make_warm_template(image))
    assert (again.state, again.error["code"]) == ("failed", "warm-template-there")
    template.refresh_from_db()
    assert template.state == "ready"
    assert len(hidden()) == 1


def test_one_that_is_cancelled_is_forgotten(host: Host, image: Image) -> None:
    vm_from(image, "first")
    operation = makings().latest("created_at")
    cancel(operation)
    carry_out(operation)
    assert not WarmTemplate.objects.exists() or not hidden()

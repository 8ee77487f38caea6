"""Warm templates: an image boots once, and VMs go on from there until something is otherwise."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from drives import services as drive_services
from images import services as image_services
from images.models import Image, Kernel
from nexus_site.core.errors import Conflict
from nexus_site.core.operations import rehearse
from tests.factories import make_kernel
from tests.vms.real_drives import done
from tests.vms.warm_hosts import (
    MEMORIES,
    Host,
    assert_nothing_is_left,
    boot_of,
    hidden,
    host,
    image,
    make_what_is_wanted,
    makings,
    on_drive,
    switch,
    template,
    vm_from,
)
from vms import provisioning_records as records
from vms import services, warm, warming
from vms.hypervisors import monitor
from vms.hypervisors.base import Handle
from vms.models import VM, WarmTemplate
from vms.paths import checkpoint_memory
from vms.services import warm as warm_services
from vms.shape import Shape

__all__ = ["host", "image", "template"]  # fixtures

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


def test_the_first_boots_and_the_second_goes_on_from_it(host: Host, image: Image) -> None:
    first = vm_from(image, "first")
    assert boot_of(first).resumed_from == ""
    assert boot_of(first).resumed == warm.NONE_YET
    making = make_what_is_wanted()
    assert (making.state, making.actor) == ("succeeded", "system")
    template = WarmTemplate.objects.get()
    assert (template.state, template.image) == ("ready", image)
    host.done.clear()

    second = vm_from(image, "second")
    assert host.done == ["restore"], "nothing has booted"
    assert (boot_of(second).resumed_from, on_drive(second)) == ("warm", "booted")
    assert boot_of(second).resumed == "warm template of alpine"
    moves = second.history.filter(to_state="running").values_list("reason", "detail__resumed")
    assert list(moves) == [("the VMM runs (pid 1), resumed", "warm template of alpine")]
    template.refresh_from_db()
    assert template.hits == 1
    assert template.last_hit_at is not None
    assert len(list(makings())) == 1


def test_a_program_has_run_before_it_is_saved(
    host: Host, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[tuple[object, bool]] = []

    async def execute(argv: object, **_: object) -> None:
        ran.append((argv, "save" in host.done))

    def with_agent(_: VM, call: Callable[[Any], Awaitable[None]]) -> None:
        asyncio.run(call(SimpleNamespace(execute=execute)))

    monkeypatch.setattr(host, "with_agent", with_agent)
    vm_from(image, "first")
    make_what_is_wanted()
    assert (ran, "save" in host.done) == ([(("/bin/sh", "-c", "exec true"), False)], True)
    told = records.who(hidden()[0])
    assert told is not None
    assert told.configuration.hostname == "vm", "no longer than the name of who goes on from it"


def test_a_vm_whose_drive_was_used_boots(template: WarmTemplate, host: Host, image: Image) -> None:
    vm = vm_from(image, "second")
    done(services.stop_vm(vm))
    vm.refresh_from_db()
    done(services.start_vm(vm))
    last = vm.boots.first()
    assert last is not None
    assert (last.resumed_from, last.resumed) == ("", "its drives have been used before")


def test_a_cold_start_boots(template: WarmTemplate, host: Host, image: Image) -> None:
    vm = vm_from(image, "second", cold=True)
    assert (boot_of(vm).resumed_from, boot_of(vm).resumed) == ("", "a cold start was asked for")
    done(services.create_vm(name="third", image=image.name, start=True, cold=True))
    assert boot_of(VM.objects.get(name="third")).resumed == "a cold start was asked for"
    done(services.create_vm(name="fourth", image=image.name))
    fourth = VM.objects.get(name="fourth")
    done(services.start_vm(fourth, cold=True))
    assert boot_of(fourth).resumed == "a cold start was asked for"


def test_nobody_sees_the_vm_behind_it(template: WarmTemplate) -> None:
    assert [vm.state for vm in hidden()] == ["stopped"]
    assert sum(services.counts_by_state().values()) == 1
    assert [vm.name for vm in VM.objects.shown()] == ["first"]
    assert [drive.name for drive in drive_services.drive_list()] == ["first"]
    assert not drive_services.snapshot_list().exists()
    totals = drive_services.storage_status().totals
    assert (totals.drives, totals.snapshots) == (2, 1), "what they take is counted"
    assert totals.memory_bytes == template.checkpoint.memory_bytes  # type: ignore[union-attr]


def test_it_is_off_by_the_setting(host: Host, image: Image, settings: Any) -> None:
    switch(settings, warm_templates=False)
    assert boot_of(vm_from(image, "first")).resumed == "warm templates are switched off"
    assert not WarmTemplate.objects.exists()
    with pytest.raises(Conflict, match="switched off"):
        warm_services.make_warm_template(image)


def test_it_waits_until_there_is_nothing_else_to_do(host: Host, image: Image) -> None:
    other = services.create_vm(name="other", image=image.name)
    vm_from(image, "first")
    assert WarmTemplate.objects.get().state == "wanted"
    assert warm_services.make_next() is None
    assert not makings()
    done(other)
    assert warm_services.make_next() is not None
    assert warm_services.make_next() is None, "one at a time"
    assert make_what_is_wanted().state == "succeeded"


def test_it_waits_for_room(host: Host, image: Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(warm_services, "RESERVE", 1.0)
    vm_from(image, "first")
    assert not makings()
    with pytest.raises(Conflict, match="no room") as caught:
        warm_services.make_warm_template(image)
    assert "MiB of memory are needed" in caught.value.text


def test_its_vmm_gives_way_to_others() -> None:
    with subprocess.Popen(["/bin/sleep", "60"]) as process:
        started = monitor.start_time(process.pid) or 0
        warming.be_nice(Handle(Path(), process.pid, started, 0, 0, "tcg"))
        niceness = os.getpriority(os.PRIO_PROCESS, process.pid)
        process.kill()
    assert niceness == warming.NICENESS


# What must be the same


@pytest.mark.parametrize(
    "shape", [Shape(mem_size_mib=256), Shape(vcpu_count=2), Shape(disk_iops=100)]
)
def test_another_shape_boots(
    template: WarmTemplate, host: Host, image: Image, shape: Shape
) -> None:
    vm = vm_from(image, "second", **shape)
    assert boot_of(vm).resumed == warm.NONE_YET
    assert WarmTemplate.objects.count() == 2


@pytest.mark.parametrize("change", ["agent", "tsc", "cpu", "version", "arguments", "kernel"])
def test_what_changes_on_the_host_makes_vms_boot(
    template: WarmTemplate,
    host: Host,
    image: Image,
    change: str,
    monkeypatch: pytest.MonkeyPatch,
    settings: Any,
) -> None:
    match change:
        case "agent":
            monkeypatch.setattr(warm, "agent_digest", lambda arch: "another")
        case "tsc":
            monkeypatch.setattr(warm, "host_tsc_khz", lambda: 3_000_000)
        case "cpu":
            monkeypatch.setattr(warm, "_cpu_model", lambda: "another")
        case "version":
            host.version = "8.0"
            monkeypatch.setattr(warm, "foresee", lambda wish: host.choose())
        case "arguments":
            switch(settings, guest_kernel_args="quiet")
        case "kernel":
            Kernel.objects.update(is_default=False)
            make_kernel(is_default=True, sha256="9" * 64)
    assert boot_of(vm_from(image, "second")).resumed == warm.NONE_YET
    if change != "kernel":  # VMs may name the other one
        assert template in [found.template for found in warm_services.prunable()]


def test_a_frequency_that_is_measured_anew_is_the_same(
    template: WarmTemplate, image: Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(warm, "host_tsc_khz", lambda: 2_000_500)
    assert boot_of(vm_from(image, "second")).resumed_from == "warm"
    assert not warm_services.prunable()


# Deleted


def test_an_image_goes_with_its_templates(template: WarmTemplate, image: Image) -> None:
    first = VM.objects.get(name="first")
    with pytest.raises(Conflict, match="used by drives: first"):
        image_services.delete_image(image)
    done(services.delete_vm(first, force=True))
    done(image_services.delete_image(image))
    assert not Image.objects.filter(pk=image.pk).exists()
    assert not WarmTemplate.objects.exists()
    assert_nothing_is_left()


def test_an_image_goes_while_one_is_to_be_made_of_it(host: Host, image: Image) -> None:
    first = vm_from(image, "first")
    done(services.delete_vm(first, force=True))
    done(image_services.delete_image(image))
    assert make_what_is_wanted().state == "cancelled"
    assert not WarmTemplate.objects.exists()
    assert_nothing_is_left()


def test_one_is_deleted_with_all_that_is_of_it(template: WarmTemplate) -> None:
    plan = rehearse(lambda: warm_services.delete_warm_template(template))
    assert [step["title"] for step in plan["steps"]] == [
        "Delete the warm template of alpine: asked for"
    ]
    done(warm_services.delete_warm_template(template))
    assert not WarmTemplate.objects.exists()
    assert_nothing_is_left()


def test_those_that_were_not_used_for_longest_are_pruned(
    template: WarmTemplate, host: Host, image: Image, settings: Any
) -> None:
    vm_from(image, "second", mem_size_mib=256)
    make_what_is_wanted()
    assert boot_of(vm_from(image, "third")).resumed_from == "warm", "used later than the other"
    assert not warm_services.prunable()
    assert warm_services.prune_if_needed() is None
    switch(settings, warm_templates_most=1)
    plan = rehearse(warm_services.prune_warm_templates)
    assert plan["title"] == "Prune 1 warm template"
    assert plan["steps"][0]["title"].endswith("others were used later, and 1 are kept")
    pruning = warm_services.prune_if_needed()
    assert pruning is not None
    assert warm_services.prune_if_needed() is None, "it is under way"
    done(pruning)
    assert list(WarmTemplate.objects.all()) == [template]


def test_memory_that_belongs_to_nothing_is_found_and_removed(template: WarmTemplate) -> None:
    (MEMORIES / "aaaaaaaaaayds").mkdir()
    (MEMORIES / "aaaaaaaaaayds" / "memory").touch()
    problems = drive_services.check_storage().problems
    assert [(problem.kind, problem.name) for problem in problems] == [("leftover", "aaaaaaaaaayds")]
    done(drive_services.repair_storage())
    assert not drive_services.check_storage().problems
    assert template.checkpoint is not None
    assert checkpoint_memory(template.checkpoint).exists()

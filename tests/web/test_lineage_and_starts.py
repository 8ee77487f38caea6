"""What a VM was made from, and what the time of its starts went into."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from nexus_site.core.models import Operation
from nexus_site.core.steps import outline
from tests.factories import make_vm
from tests.web.conftest import make_operation
from vms.lifecycle import start_plan
from vms.lineage import lineage
from vms.models import VM, Boot
from vms.states import State
from vms.transitions import move
from vms.waterfall import waterfall

pytestmark = pytest.mark.usefixtures("nudges")


@pytest.fixture
def vm(db: None) -> VM:
    return make_vm(name="web")


def page(client: Client, address: str = "/vms/web/") -> str:
    return html.unescape(client.get(address).content.decode())


# Lineage


def make_child(parent: VM, name: str, **values: Any) -> VM:
    return make_vm(name=name, parent=parent, **values)


def test_the_family_is_a_tree_with_states(client: Client, vm: VM) -> None:
    assert re.search(r'id="vms-lineage"[^>]* hidden', page(client))
    one = make_child(vm, "one")
    two = make_child(one, "two")
    make_child(vm, "three")
    make_child(vm, "nobodys", purpose=VM.Purpose.POOL)
    names = ["web", "one", "two", "three"]
    three = VM.objects.get(name="three")
    for member in (vm, one, two, three):
        lines = lineage(member)
        assert [line.snapshot.vm.name for line in lines] == names
        assert [line.level for line in lines] == [0, 1, 2, 1]
        assert [line.snapshot.vm.name for line in lines if line.here] == [member.name]
    shown = page(client, "/vms/two/")
    section = shown[shown.index('id="vms-lineage"') :]
    assert "this one" in section
    assert f'href="/vms/{vm.ref}/"' in section
    assert f"vm:{one.ref}" in section[:400], "live"


def test_an_ancestor_that_is_nobodys_is_not_shown(vm: VM) -> None:
    hidden = make_vm(purpose=VM.Purpose.WARM)
    assert lineage(make_child(hidden, "own")) == []


def test_a_large_family_is_cut_and_keeps_the_one_that_is_looked_at(
    vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vms.lineage.MOST", 3)
    children = [make_child(vm, f"child-{number}") for number in range(6)]
    names = [line.snapshot.vm.name for line in lineage(children[-1])]
    assert "child-5" in names
    assert len(names) <= 4


# Starts


def boot_of(vm: VM, number: int, seconds: float, **values: object) -> Boot:
    """A start whose steps took 10 ms, 20 ms and half of the rest; and its operation."""
    begun = timezone.now() - timedelta(hours=1) + timedelta(minutes=number)
    at = [begun + timedelta(seconds=s) for s in (0, 0.01, 0.03, 0.03 + seconds / 2)]
    steps = outline(start_plan(Operation()))
    for step, since, until in zip(steps, at, at[1:], strict=False):
        step |= {"started_at": since.isoformat(), "ended_at": until.isoformat(), "state": "done"}
    make_operation(kind="vm.start", subject_kind="vm", subject_id=vm.pk, steps=steps)
    return Boot.objects.create(
        vm=vm, number=number, hypervisor="qemu", launched_at=at[2] + timedelta(milliseconds=1),
        hello_at=begun + timedelta(seconds=seconds), **values,
    )  # fmt: skip


def test_a_resumed_start_beside_a_booted_one(client: Client, vm: VM) -> None:
    booted = boot_of(vm, 1, 20.0, resumed="there is no warm template yet")
    resumed = boot_of(vm, 2, 0.2, resumed="warm template", resumed_from="warm")
    bars = waterfall(vm, [resumed, booted])
    assert [round(bar.seconds, 2) for bar in bars] == [0.2, 20.0]
    assert [phase.key for phase in bars[1].phases] == ["storage", "kernel", "launch", "hello"]
    assert [round(phase.seconds, 2) for phase in bars[1].phases] == [0.01, 0.02, 10.0, 9.97]
    assert bars[1].phases[3].x == "50.15%"
    assert all(float(phase.width[:-1]) <= 0.5 for phase in bars[0].phases), "one scale"
    shown = page(client)
    assert shown.count('class="starts-bar"') == 2
    assert re.search(r"#2 <strong>resumed</strong></span><span>200 ms", shown)
    assert re.search(r"#1 <strong>booted</strong></span><span>20 s", shown)
    assert "booted: there is no warm template yet" in shown


def test_a_start_whose_steps_are_not_known_shows_the_hello_alone(client: Client, vm: VM) -> None:
    launched = timezone.now()
    Boot.objects.create(
        vm=vm, number=1, hypervisor="qemu", launched_at=launched,
        hello_at=launched + timedelta(seconds=6),
    )  # fmt: skip
    Boot.objects.create(vm=vm, number=2, hypervisor="qemu", launched_at=launched)
    (bar,) = waterfall(vm, vm.boots.all())
    assert [(phase.key, phase.width) for phase in bar.phases] == [("hello", "100.00%")]


def test_the_history_says_what_it_went_on_from(client: Client) -> None:
    vm = make_vm(name="again")
    move(vm, State.STARTING, "start requested")
    move(vm, State.RUNNING, "the VMM runs", detail={"resumed": "checkpoint <monday> of web"})
    assert "Resumed: checkpoint &lt;monday&gt; of web" in client.get("/vms/again/").content.decode()

"""Pausing, suspending, checkpoints and forks over HTTP: what each endpoint gives and takes."""

from __future__ import annotations

import pytest

from drives import services as drive_services
from nexus_site.core.models import Operation
from tests.factories import make_vm_snapshot
from vms import services
from vms.models import VM, VMSnapshot
from vms.states import Desired, State


def refused(response):
    return response.status_code, response.json()["code"]


@pytest.fixture
def suspended(world):
    VM.objects.filter(pk=world.vm.pk).update(
        state=State.SUSPENDED, saved_memory={"reason": "request", "bytes": 1 << 20}
    )
    world.vm.refresh_from_db()
    return world.vm


@pytest.mark.parametrize(
    ("verb", "steps"),
    [
        ("pause", ["pause"]),
        ("suspend", ["save", "end"]),
        ("checkpoint", ["checkpoint"]),
    ],
)
def test_a_ready_vm_can_stand_still(ready, operator, verb, steps):
    plan = operator.send("POST", f"/vms/hello/{verb}?dry_run=1").json()
    assert [step["name"] for step in plan["steps"]] == steps
    assert not Operation.objects.filter(kind__startswith="vm.", ended_at=None).exists()
    done = operator.send("POST", f"/vms/hello/{verb}")
    assert (done.status_code, done.json()["kind"]) == (
        202,
        {"checkpoint": "vm.snapshot"}.get(verb, f"vm.{verb}"),
    )
    assert refused(operator.send("POST", f"/vms/hello/{verb}")) == (409, "vm-busy")


@pytest.mark.parametrize(
    ("verb", "code"),
    [
        ("pause", "vm-not-ready"),
        ("unpause", "vm-not-paused"),
        ("suspend", "vm-not-ready"),
        ("resume", "vm-not-suspended"),
        ("checkpoint", "vm-not-ready"),
        ("fork", "vm-not-ready"),
    ],
)
def test_a_vm_at_rest_has_nothing_to_stand_still(world, operator, verb, code):
    assert refused(operator.send("POST", f"/vms/hello/{verb}")) == (409, code)


@pytest.mark.parametrize("verb", ["checkpoint", "fork"])
@pytest.mark.parametrize("path", ["", "?dry_run=1"])
def test_nothing_goes_on_from_the_memory_of_an_old_agent(ready, world, operator, verb, path):
    drive_services.storage().create(world.drive.ref, 1 << 20)
    VM.objects.filter(pk=ready.pk).update(agent={"agent_version": "0.3.1"})
    answer = operator.send("POST", f"/vms/hello/{verb}{path}")
    assert refused(answer) == (409, "agent-outdated")
    assert "nexusctl vm agent-upgrade hello" in answer.json()["hint"]


def test_a_paused_vm_is_unpaused(world, operator):
    VM.objects.filter(pk=world.vm.pk).update(state=State.PAUSED, desired_state=Desired.PAUSED)
    assert operator.send("POST", "/vms/hello/unpause").status_code == 202


@pytest.mark.parametrize("cold", [False, True])
def test_a_suspended_vm_says_what_is_known_of_its_memory_and_is_resumed(
    suspended, world, operator, cold
):
    drive_services.storage().create(world.drive.ref, 1 << 20)
    shown = operator.send("GET", "/vms/hello").json()
    assert (shown["state"], shown["saved_memory"]["bytes"]) == ("suspended", 1 << 20)
    done = operator.send("POST", "/vms/hello/resume", {"cold": cold})
    assert (done.status_code, done.json()["kind"]) == (202, "vm.start")
    assert Operation.objects.get(kind="vm.start").params["cold"] is cold


def test_a_checkpoint_is_listed_among_the_snapshots(ready, operator):
    checkpoint = make_vm_snapshot(ready, name="monday", with_memory=True, memory_bytes=5 << 20)
    VMSnapshot.objects.filter(pk=checkpoint.pk).update(
        memory_of={"hypervisor": "qemu", "version": "7.2", "accelerator": "tcg"}, held_ms=12
    )
    (row,) = operator.send("GET", "/vms/hello/snapshots").json()["items"]
    assert (row["with_memory"], row["memory_bytes"], row["held_ms"]) == (True, 5 << 20, 12)
    assert row["memory_of"]["hypervisor"] == "qemu"


def test_forks_of_a_checkpoint(ready, world, operator):
    drive_services.storage().create(world.drive.ref, 1 << 20)
    checkpoint = make_vm_snapshot(ready, name="monday", with_memory=True)
    part = checkpoint.parts.get().snapshot
    drive_services.storage().snapshot(world.drive.ref, part.ref)
    body = {"count": 3, "snapshot": "monday", "name": "job"}
    plan = operator.send("POST", "/vms/hello/fork?dry_run=1", body).json()
    assert [step["name"] for step in plan["steps"]] == ["room", "vms", "drives", "start"]
    done = operator.send("POST", "/vms/hello/fork", body | {"start": False})
    assert [step["name"] for step in done.json()["steps"]] == ["room", "vms", "drives"]
    assert done.json()["title"] == "Fork VM hello 3 times"


@pytest.mark.parametrize("count", [0, 101])
def test_there_are_not_as_many_forks_as_one_likes(ready, operator, count):
    assert operator.send("POST", "/vms/hello/fork", {"count": count}).status_code == 422


def test_the_same_request_forks_once(ready, operator):
    make_vm_snapshot(ready, name="monday", with_memory=True)
    headers = {"Idempotency-Key": "one"}
    first, second = (
        operator.send("POST", "/vms/hello/fork", {"snapshot": "monday"}, headers=headers)
        for _ in range(2)
    )
    assert first.json()["id"] == second.json()["id"]


def test_the_time_after_which_it_suspends_itself(world, operator):
    changed = operator.send("PATCH", "/vms/hello", {"idle_suspend_minutes": 10}).json()
    assert changed["idle_suspend_minutes"] == 10
    changed = operator.send("PATCH", "/vms/hello", {"idle_suspend_minutes": 0}).json()
    assert changed["idle_suspend_minutes"] is None
    assert operator.send("PATCH", "/vms/hello", {"idle_suspend_minutes": -1}).status_code == 422


def test_a_clone_names_what_it_comes_from(world, operator):
    made = operator.send("POST", "/vms/hello/clone", {"name": "copy"})
    assert made.status_code == 202
    assert operator.send("GET", "/vms/copy").json()["parent"]["name"] == "hello"
    assert services.USUAL["idle_suspend_minutes"] is None

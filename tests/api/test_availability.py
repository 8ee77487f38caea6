"""Restart policies, unreachable actions and agents' upgrades over the API."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from nexus_site.core import operations
from nexus_site.core.models import Event, Operation
from tests.api.conftest import APIClient, World
from tests.guest_agent.guests import HELLO
from vms import supervision, upgrading
from vms.models import VM
from vms.states import State


def post(operator: APIClient, path: str, body: dict[str, Any], status: int = 202) -> dict[str, Any]:
    answer = operator.send("POST", path, body)
    assert answer.status_code == status, answer.content
    found: dict[str, Any] = answer.json()
    return found


OLD = {**HELLO, "agent_version": "0.0.1"}
NEW = {**HELLO, "agent_version": "99.0.0"}


def test_policies_are_set_for_a_new_vm(operator: APIClient, world: World) -> None:
    body = {
        "drive": "spare",
        "name": "web",
        "restart_policy": "always",
        "unreachable_action": "stop",
    }
    post(operator, "/vms", body, 202)
    found = operator.get("/vms/web").json()
    assert (found["restart_policy"], found["unreachable_action"]) == ("always", "stop")
    assert (found["restarts"], found["restart_at"]) == (0, None)


def test_policies_are_changed_while_a_vm_runs(operator: APIClient, world: World) -> None:
    VM.objects.filter(pk=world.vm.pk).update(state=State.READY)
    found = operator.send("PATCH", "/vms/hello", {"restart_policy": "on-failure"}).json()
    assert (found["restart_policy"], found["unreachable_action"]) == ("on-failure", "keep")
    found = operator.send("PATCH", "/vms/hello", {"unreachable_action": "restart"}).json()
    assert (found["restart_policy"], found["unreachable_action"]) == ("on-failure", "restart")
    assert Event.objects.filter(kind="vm.changed").count() == 2


@pytest.mark.parametrize(
    "body", [{"restart_policy": "maybe"}, {"unreachable_action": "panic"}, {"restart_policy": 1}]
)
def test_what_is_no_policy_is_refused(
    operator: APIClient, world: World, body: dict[str, Any]
) -> None:
    assert operator.send("PATCH", "/vms/hello", body).status_code == 422


def test_a_planned_restart_is_told_and_stopped(operator: APIClient, world: World) -> None:
    at = timezone.now() + timedelta(minutes=1)
    VM.objects.filter(pk=world.vm.pk).update(state=State.CRASHED, restart_at=at, restarts=3)
    found = operator.get("/vms/hello").json()
    assert (found["restarts"], found["restart_at"] is not None) == (3, True)
    post(operator, "/vms/hello/stop", {}, 202)
    assert operator.get("/vms/hello").json()["restart_at"] is None


def test_a_shortcut_takes_policies(operator: APIClient, world: World) -> None:
    body = {"image": "alpine-3-23", "name": "web", "restart_policy": "on-failure"}
    operation = post(operator, "/vms/from-image", body, 202)
    row = Operation.objects.get(subject_name="web")
    assert row.ref == operation["id"]
    assert row.params["restart_policy"] == "on-failure"


# Agents


@pytest.fixture
def outdated(world: World) -> VM:
    VM.objects.filter(pk=world.vm.pk).update(state=State.READY, agent=OLD)
    world.vm.refresh_from_db()
    return world.vm


def test_an_outdated_agent_is_told(operator: APIClient, outdated: VM) -> None:
    assert operator.get("/vms/hello").json()["agent_outdated"] is True
    (row,) = operator.get("/vms").json()["items"]
    assert row["agent_outdated"] is True
    current: list[dict[str, Any]] = [
        {"agent": NEW},
        {"agent": OLD, "state": State.STOPPED},
        {"agent": {}},
    ]
    for values in current:
        VM.objects.filter(pk=outdated.pk).update(**values)
        assert operator.get("/vms/hello").json()["agent_outdated"] is False


def test_an_agent_is_upgraded_and_says_hello(
    operator: APIClient, outdated: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replaced(vm: VM, call: object) -> None:
        VM.objects.filter(pk=vm.pk).update(agent=NEW)

    monkeypatch.setattr(supervision, "with_agent", replaced)
    opened = post(operator, "/vms/hello/agent-upgrade", {}, 202)
    operations.execute(Operation.objects.get(kind="vm.agent-upgrade").pk)
    found = operator.get(f"/operations/{opened['id']}").json()
    assert found["state"] == "succeeded"
    assert [step["note"] for step in found["steps"]] == [
        "agent 0.0.1 leaves",
        "agent 99.0.0 said hello",
    ]
    event = Event.objects.get(kind="vm.agent_upgraded")
    assert event.data == {"before": "0.0.1", "version": "99.0.0"}


def test_one_that_is_current_is_let_be(operator: APIClient, outdated: VM) -> None:
    VM.objects.filter(pk=outdated.pk).update(agent=NEW)
    opened = post(operator, "/vms/hello/agent-upgrade", {}, 202)
    operations.execute(Operation.objects.get(kind="vm.agent-upgrade").pk)
    found = operator.get(f"/operations/{opened['id']}").json()
    assert found["steps"][0]["state"] == "skipped"
    assert found["steps"][0]["note"] == "agent 99.0.0 is current"
    assert not Event.objects.filter(kind="vm.agent_upgraded").exists()


def test_a_new_agent_that_never_calls_fails_the_operation(
    operator: APIClient, outdated: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "with_agent", lambda vm, call: None)
    monkeypatch.setattr(upgrading, "HELLO_TIMEOUT", 0.1)
    opened = post(operator, "/vms/hello/agent-upgrade", {}, 202)
    operations.execute(Operation.objects.get(kind="vm.agent-upgrade").pk)
    found = operator.get(f"/operations/{opened['id']}").json()
    assert (found["state"], found["error"]["code"]) == ("failed", "agent-gone")


@pytest.mark.parametrize(
    ("state", "status"), [(State.STOPPED, 409), (State.UNREACHABLE, 503), (State.PAUSED, 503)]
)
def test_only_an_agent_that_answers_is_upgraded(
    operator: APIClient, outdated: VM, state: State, status: int
) -> None:
    VM.objects.filter(pk=outdated.pk).update(state=state)
    post(operator, "/vms/hello/agent-upgrade", {}, status)
    assert not Operation.objects.filter(kind="vm.agent-upgrade").exists()

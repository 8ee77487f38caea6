"""Restart policies, unreachable actions and outdated agents on the pages of VMs."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import Client
from django.utils import timezone

from guest_agent.binary import agent_version
from guest_agent.messages import Heartbeat, Hello
from nexus_site.core.models import Operation
from tests.factories import make_vm
from tests.guest_agent.guests import HELLO
from tests.web.conftest import htmx, make_ready_vm
from vms import outcomes, silence
from vms.models import VM
from vms.paths import CONSOLE, make_vm_dir
from vms.silence import Signs
from vms.states import State

pytestmark = pytest.mark.usefixtures("nudges")

TRICKS = "<script>alert(1)</script>\x1b[31m\u202e\u2066<img src=x onerror=1>'\"&"


def page(client: Client, address: str) -> str:
    return client.get(address).content.decode()


def plan_restart(name: str) -> VM:
    at = timezone.now() + timedelta(seconds=60)
    return make_vm(
        name=name,
        state=State.CRASHED,
        desired_state="running",
        restart_policy="on-failure",
        restart_at=at,
        restarts=2,
    )


def test_policies_are_changed_in_the_dialog_while_the_vm_runs(client: Client) -> None:
    vm = make_ready_vm(name="hello")
    form = {
        "hypervisor": vm.hypervisor,
        "restart_policy": "always",
        "unreachable_action": "restart",
    }
    client.post("/vms/hello/change/", form, headers=htmx("dialog"))
    vm.refresh_from_db()
    assert (vm.restart_policy, vm.unreachable_action) == ("always", "restart")
    html = page(client, "/vms/hello/")
    assert "<dt>Start again</dt><dd>unless somebody stopped it</dd>" in html
    assert "<dt>If unreachable</dt><dd>restart it</dd>" in html


def test_a_policy_is_chosen_for_a_new_vm(client: Client) -> None:
    html = page(client, "/vms/new/?from=image")
    assert "Hypervisor, limits, restarts" in html or "No image yet" in html


def test_a_planned_restart_is_shown_and_cancelled(client: Client) -> None:
    vm = plan_restart("hello")
    html = page(client, "/vms/hello/")
    found = re.search(r"It starts again</strong> <time [^>]*data-due>in (\d+) s</time>", html)
    assert found, html
    assert "attempt 3" in html
    client.post("/vms/hello/stop/", headers=htmx("form"))
    vm.refresh_from_db()
    assert (vm.restart_at, vm.state) == (None, State.CRASHED)
    assert "It starts again" not in page(client, "/vms/hello/")


def test_an_outdated_agent_is_told_and_upgraded(client: Client) -> None:
    vm = make_ready_vm(name="hello", agent={**HELLO, "agent_version": "0.0.1"})
    assert "Agent outdated" in page(client, "/vms/hello/")
    assert ">outdated</span>" in page(client, "/vms/hello/")
    client.post("/vms/hello/agent-upgrade/", headers=htmx("form"))
    assert Operation.objects.get(kind="vm.agent-upgrade").subject_id == vm.pk


def test_the_list_tells_outdated_agents(client: Client) -> None:
    make_ready_vm(name="old", agent={**HELLO, "agent_version": "0.0.1"})
    assert page(client, "/vms/").count(">outdated</span>") == 1


@pytest.mark.parametrize(
    "values",
    [
        {"agent": {**HELLO, "agent_version": agent_version()}},
        {"agent": {**HELLO, "agent_version": "0.0.1"}, "state": State.STOPPED},
    ],
)
def test_a_current_agent_or_one_that_does_not_run_is_not_outdated(
    client: Client, values: dict[str, Any]
) -> None:
    vm = make_ready_vm(name="hello")
    VM.objects.filter(pk=vm.pk).update(**values)
    assert "outdated" not in page(client, "/vms/hello/")


def test_nothing_that_a_guest_says_gets_into_a_page_as_markup(client: Client) -> None:
    """What it says goes the way it does in the supervisor: parsed, kept, shown."""
    vm = make_ready_vm(name="hello")
    lies = dict.fromkeys(("agent_version", "arch", "kernel", "os", "init", "hostname"), TRICKS)
    image = dict.fromkeys(("image_id", "image_name", "build_id", "built_at"), TRICKS)
    hello = Hello.parse(HELLO | lies | {"image": image}).to_dict()
    disk = {"path": TRICKS, "total": 1 << 30, "free": 0}
    memory = {"total": 1 << 30, "available": 0}
    heartbeat = Heartbeat.parse(
        {"uptime": 1, "time": 1, "load": [1, 1, 1], "memory": memory, "disks": [disk]}
    )
    VM.objects.filter(pk=vm.pk).update(heartbeat=heartbeat.to_dict())
    (make_vm_dir(vm) / CONSOLE).write_text(f"Kernel panic - not syncing: {TRICKS}\n")
    silence.notice(vm, 1000.0, Signs(connected=False, ended="", drift=0.0))
    outcomes.agent_said_hello(vm, hello, timezone.now())
    for address in ("/vms/hello/", "/vms/", "/events/"):
        html = page(client, address)
        assert "<script>alert" not in html, address
        html = re.sub(r'(?s)<pre class="log".*?</pre>', "", html)  # the console has a place apart
        assert "<img src=x" not in html, address
        assert "\x1b" not in html, address
        assert "\u202e" not in html, address
    assert "&lt;script&gt;alert(1)" in page(client, "/vms/hello/")

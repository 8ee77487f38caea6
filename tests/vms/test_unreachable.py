"""Agents that fall silent: when, why, and what is done about it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from guest_agent.messages import Heartbeat
from nexus_site.core.operations import open_operations
from tests.factories import make_vm
from vms import live_drives, outcomes, services, silence
from vms.hypervisors.base import Exit
from vms.models import VM, Transition
from vms.paths import CONSOLE, make_vm_dir
from vms.silence import Clock, Signs, drift_of
from vms.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

QUIET = Signs(connected=False, ended="", drift=0.0)
LONG = 1000.0  # seconds of silence
HEARTBEAT = Heartbeat(1.0, 1e9, (0.0, 0.0, 0.0), 1, 1, ())


def make_ready(**values: Any) -> VM:
    ready: dict[str, Any] = {"state": State.READY, "heartbeat_at": timezone.now()}
    return make_vm(**ready | values)


def says(vm: VM, text: str) -> None:
    (make_vm_dir(vm) / CONSOLE).write_text(text)


def last(vm: VM) -> Transition:
    row = vm.history.last()
    assert row is not None
    return row


def silent(vm: VM, signs: Signs = QUIET) -> str:
    """The reason why it is unreachable now."""
    silence.notice(vm, LONG, signs)
    assert last(vm).to_state == State.UNREACHABLE
    return last(vm).reason


# Why


def test_a_silence_shorter_than_it_may_be_is_none() -> None:
    vm = make_ready()
    silence.notice(vm, 1.0, QUIET)
    assert last(vm).to_state == State.CREATED


def test_an_agent_that_is_connected_but_does_not_answer() -> None:
    reason = silent(make_ready(), replace(QUIET, connected=True))
    assert reason == "no heartbeat for 1000 s; the agent is connected, but does not answer"


@pytest.mark.parametrize(
    ("ended", "shown"),
    [
        ("", ""),
        (
            "The connection to the VM's agent ended: the other end closed it.",
            "; the connection to the VM's agent ended: the other end closed it",
        ),
        (
            "The VM's agent broke the protocol: it speaks version 9 of the protocol, Nexus 1.",
            "; the VM's agent broke the protocol: it speaks version 9 of the protocol, Nexus 1",
        ),
    ],
)
def test_how_its_connection_ended_is_named(ended: str, shown: str) -> None:
    assert silent(make_ready(), replace(QUIET, ended=ended)) == f"no heartbeat for 1000 s{shown}"


@pytest.mark.parametrize(
    ("console", "cause"),
    [
        (
            "[ 9.1] Kernel panic - not syncing: sysrq triggered crash\n[ 9.2] CPU: 0 PID: 9\n",
            "its console says: Kernel panic - not syncing: sysrq triggered crash",
        ),
        (
            "[ 7.0] Out of memory: Killed process 312 (nexus-agent) total-vm:722kB\n",
            "the guest ran out of memory: its kernel killed nexus-agent",
        ),
        (
            "Kernel panic - not syncing: \x1b[31m<script>x</script>\x1b[0m" + "a" * 500,
            "its console says: Kernel panic - not syncing: [31m<script>x</script>[0m",
        ),
    ],
)
def test_what_its_kernel_said_last_is_named(console: str, cause: str) -> None:
    vm = make_ready()
    says(vm, console)
    reason = silent(vm)
    assert cause in reason
    assert reason.isprintable()
    assert len(reason) <= 300


def test_a_panic_before_a_long_trace_is_found() -> None:
    trace = "".join(f"[ 9.{n:03}] ? function_{n}+0x5d/0x90\n" for n in range(200))
    vm = make_ready(vmm="qemu", restart_policy="on-failure", desired_state="running")
    says(vm, f"[ 9.0] Kernel panic - not syncing: sysrq triggered crash\n{trace}")
    assert "Kernel panic" in silent(vm)
    outcomes.vmm_ended(vm, Exit(0, None, 1.0))
    assert last(vm).to_state == State.CRASHED
    assert last(vm).reason == "the VMM exited with code 0: the guest panicked"
    assert last(vm).detail["console"][0].endswith("sysrq triggered crash")
    assert last(vm).detail["console"][-1].endswith("function_199+0x5d/0x90")
    vm.refresh_from_db()
    assert vm.restart_at


def test_what_it_says_otherwise_is_no_cause() -> None:
    vm = make_ready()
    says(vm, "Welcome to Alpine\notter login: \n")
    assert silent(vm) == "no heartbeat for 1000 s"


def test_a_clock_that_had_jumped_is_named() -> None:
    assert "clock was 90 s behind" in silent(make_ready(), replace(QUIET, drift=-90.0))


def test_a_guest_that_never_says_hello(settings: Any) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"agent_ready_timeout": 0.001})
    assert "no hello within" in silent(make_vm(state=State.RUNNING))


def test_back_to_ready_names_how_long_it_was_silent() -> None:
    vm = make_ready(heartbeat_at=timezone.now() - timedelta(seconds=40))
    silent(vm)
    outcomes.agent_said_hello(vm, {"agent_version": "1.2.3"}, timezone.now())
    assert last(vm).to_state == State.READY
    assert last(vm).reason in {
        f"agent 1.2.3 answers again after {seconds} s of silence" for seconds in range(40, 60)
    }


# Clocks


@pytest.mark.parametrize(
    ("shown", "drift"),
    [(1000.0, 0), (996.0, 0), (1012.0, 0), (900.0, -110), (1100.0, 90), (2.0**40, 2**40 - 1010)],
)
def test_a_clock_is_wrong_beyond_what_is_usual(shown: float, drift: float) -> None:
    assert drift_of(replace(HEARTBEAT, time=shown), 1000.0, 1010.0) == drift


def test_a_clock_is_set_now_and_then_however_often_it_jumps(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock()
    assert clock.is_to_be_set(HEARTBEAT, time.time())
    assert not clock.is_to_be_set(HEARTBEAT, time.time())
    assert clock.drift
    monkeypatch.setattr(silence, "CLOCK_EVERY", 0.0)
    assert clock.is_to_be_set(HEARTBEAT, time.time())


# What is done


def kinds(vm: VM) -> list[str]:
    return [operation.kind for operation in open_operations(vm)]


@pytest.mark.parametrize(
    ("action", "opened"), [("keep", []), ("restart", ["vm.restart"]), ("stop", ["vm.stop"])]
)
def test_the_action_is_carried_out_once(action: str, opened: list[str]) -> None:
    vm = make_ready(unreachable_action=action)
    silent(vm)
    assert kinds(vm) == []
    for _ in range(3):
        silence.notice(vm, LONG, QUIET)
        assert kinds(vm) == opened
    if opened:
        assert last(vm).reason == f"unreachable action: {action} (no heartbeat for 1000 s)"
        assert last(vm).actor == "system"
        assert last(vm).to_state == State.STOPPING


def test_a_restart_does_not_ask_the_guest() -> None:
    vm = make_ready(unreachable_action="restart")
    silent(vm)
    silence.notice(vm, LONG, QUIET)
    assert open_operations(vm).get().params["force"] is True


def _snapshot(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    services.snapshot_vm(vm)


def _hold(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live_drives, "is_held", lambda vm: True)


@pytest.mark.parametrize("occupy", [_snapshot, _hold])
def test_nothing_is_done_while_the_vm_is_held_or_worked_on(
    occupy: Callable[[VM, pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    vm = make_ready(unreachable_action="restart")
    occupy(vm, monkeypatch)
    silent(vm)
    before = kinds(vm)
    silence.notice(vm, LONG, QUIET)
    assert kinds(vm) == before
    assert last(vm).to_state == State.UNREACHABLE


def test_a_new_worker_listens_before_it_acts() -> None:
    vm = make_ready(unreachable_action="restart")
    silent(vm)
    silence.notice(vm, 0.5, QUIET)
    assert kinds(vm) == []


def test_a_paused_vm_is_let_be() -> None:
    vm = make_vm(state=State.PAUSED, unreachable_action="restart")
    silence.notice(vm, LONG, QUIET)
    assert (kinds(vm), last(vm).to_state) == ([], State.CREATED)


def test_a_vm_that_was_stopped_for_its_silence_stays_stopped() -> None:
    vm = make_ready(unreachable_action="stop", restart_policy="always")
    silent(vm)
    silence.notice(vm, LONG, QUIET)
    vm.refresh_from_db()
    assert vm.desired_state == "stopped"

"""Restart policies: what is started again, when, how often, and what ends that."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from nexus_site.core import events, operations
from nexus_site.core.errors import Broken
from nexus_site.core.models import Event, Operation
from nexus_site.core.steps import Cancelled
from tests.factories import make_drive, make_vm
from vms import outcomes, restarts, services
from vms.hypervisors.base import Exit
from vms.models import VM, Boot
from vms.services import policies
from vms.states import Desired, State
from vms.transitions import move

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

KILLED, SWITCHED_OFF = Exit(None, 9, 1.0), Exit(0, None, 1.0)
ON_FAILURE, ALWAYS = VM.RestartPolicy.ON_FAILURE, VM.RestartPolicy.ALWAYS


def make_running(policy: str = ON_FAILURE, **values: Any) -> VM:
    """A VM that is ready, as somebody wished."""
    defaults = {"state": State.READY, "desired_state": Desired.RUNNING, "vmm": "qemu"}
    vm = make_vm(**defaults | {"restart_policy": policy} | values)
    Boot.objects.create(vm=vm, number=1)
    return vm


def end(vm: VM, ended: Exit = KILLED) -> VM:
    outcomes.vmm_ended(vm, ended)
    vm.refresh_from_db()
    return vm


def make_due(vm: VM) -> None:
    VM.objects.filter(pk=vm.pk).update(restart_at=timezone.now() - timedelta(seconds=1))


def opened(vm: VM) -> list[Operation]:
    return list(operations.open_operations(vm))


# What is planned


@pytest.mark.parametrize(
    ("policy", "ended", "planned"),
    [
        ("no", KILLED, False),
        ("no", SWITCHED_OFF, False),
        ("on-failure", KILLED, True),
        ("on-failure", SWITCHED_OFF, False),
        ("always", KILLED, True),
        ("always", SWITCHED_OFF, True),
    ],
)
def test_what_ends_unasked_is_planned_by_its_policy(
    policy: str, ended: Exit, planned: bool
) -> None:
    vm = end(make_running(policy), ended)
    assert (vm.restart_at is not None) == planned
    assert Event.objects.filter(kind="vm.restart_planned").exists() == planned


@pytest.mark.parametrize(("policy", "planned"), [("no", False), ("on-failure", True)])
def test_a_start_that_failed_is_planned(policy: str, planned: bool) -> None:
    vm = make_running(policy, state=State.STARTING)
    outcomes.start_failed(vm, Broken("The VMM did not start."))
    vm.refresh_from_db()
    assert (vm.state, vm.restart_at is not None) == (State.FAILED, planned)


def test_a_start_that_somebody_cancelled_is_not_planned() -> None:
    vm = make_running(ALWAYS, state=State.STARTING)
    outcomes.start_failed(vm, Cancelled("The operation was cancelled."))
    vm.refresh_from_db()
    assert (vm.state, vm.restart_at) == (State.FAILED, None)


def test_a_guest_that_halted_and_whose_vmm_was_killed_is_planned() -> None:
    vm = make_running(ALWAYS)
    move(vm, State.STOPPING, "the guest shut itself down")
    assert end(vm).restart_at is not None


def test_what_somebody_stops_stays_stopped() -> None:
    vm = make_running(ALWAYS)
    services.stop_vm(vm)
    assert end(vm, SWITCHED_OFF).restart_at is None


def test_a_restart_by_a_person_plans_no_second_one() -> None:
    vm = make_running(ALWAYS)
    services.restart_vm(vm)
    assert end(vm, SWITCHED_OFF).restart_at is None


def test_a_vm_that_nobody_wants_to_run_stays() -> None:
    vm = make_running(ALWAYS, desired_state=Desired.STOPPED)
    assert end(vm).restart_at is None


def test_pauses_double_up_to_five_minutes() -> None:
    assert [restarts.pause(n) for n in range(10)] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300]
    assert restarts.pause(10**6) == 300


def test_the_plan_lies_as_far_ahead_as_there_were_restarts() -> None:
    before = timezone.now()
    vm = end(make_running(restarts=3))
    assert vm.restart_at
    assert vm.restart_at >= before + timedelta(seconds=8)
    event = Event.objects.get(kind="vm.restart_planned")
    assert event.data == {"attempt": 4, "seconds": 8.0}


# What is due


def test_what_is_due_becomes_an_ordinary_start_of_the_system() -> None:
    vm = end(make_running(restarts=2))
    assert policies.start_due(), "it is not due yet"
    assert opened(vm) == []
    make_due(vm)
    with events.acting(events.SYSTEM):
        assert policies.start_due() is None
    vm.refresh_from_db()
    (operation,) = opened(vm)
    assert (operation.kind, operation.actor) == ("vm.start", "system")
    last = vm.history.last()
    assert last is not None
    assert (last.to_state, last.reason) == ("starting", "restart policy: on-failure, attempt 3")
    assert (last.actor, last.operation_id) == ("system", operation.pk)
    assert (vm.restarts, vm.restart_at) == (3, None)


def test_the_next_attempt_comes_later() -> None:
    vm = end(make_running())
    for attempt in (1, 2, 3):
        make_due(vm)
        policies.start_due()
        vm.refresh_from_db()
        assert vm.restarts == attempt
        Operation.objects.all().delete()
        outcomes.start_failed(vm, Broken("Again."))
    waits = [
        e.data["seconds"] for e in Event.objects.filter(kind="vm.restart_planned").order_by("seq")
    ]
    assert waits == [1, 2, 4, 8]


def test_a_busy_vm_is_looked_at_again_soon() -> None:
    vm = end(make_running())
    make_due(vm)
    services.snapshot_vm(VM.objects.get(pk=vm.pk))
    assert policies.start_due() == policies.SOON
    assert [operation.kind for operation in opened(vm)] == ["vm.snapshot"]
    vm.refresh_from_db()
    assert vm.restarts == 0


def test_a_start_that_is_refused_is_put_off_and_counts() -> None:
    vm = end(make_running())
    vm.attachments.all().delete()
    make_due(vm)
    policies.start_due()
    vm.refresh_from_db()
    assert (vm.state, vm.restarts) == (State.CRASHED, 1)
    assert vm.restart_at
    assert vm.restart_at > timezone.now()


def test_one_that_cannot_start_keeps_no_other_from_it() -> None:
    broken, fine = end(make_running()), end(make_running())
    broken.attachments.all().delete()
    make_due(broken)
    make_due(fine)
    policies.start_due()
    fine.refresh_from_db()
    assert fine.state == State.STARTING


def test_who_was_ready_for_ten_minutes_counts_anew() -> None:
    long, short = make_running(restarts=5), make_running(restarts=5)
    VM.objects.filter(pk=long.pk).update(state_since=timezone.now() - timedelta(minutes=11))
    VM.objects.filter(pk=short.pk).update(state_since=timezone.now() - timedelta(minutes=9))
    policies.start_due()
    long.refresh_from_db()
    short.refresh_from_db()
    assert (long.restarts, short.restarts) == (0, 5)


# What ends it


def test_a_stop_cancels_the_plan_and_leaves_the_vm_as_it_is() -> None:
    vm = end(make_running())
    operation = services.stop_vm(vm)
    operations.execute(operation.pk)
    operation.refresh_from_db()
    vm.refresh_from_db()
    assert operation.state == Operation.State.SUCCEEDED
    assert [step["note"] for step in operation.steps] == ["it is crashed", ""]
    assert (vm.state, vm.restart_at, vm.desired_state) == (State.CRASHED, None, Desired.STOPPED)
    assert Event.objects.filter(kind="vm.restart_cancelled").count() == 1
    assert policies.start_due() is None


def test_a_persons_start_takes_the_plans_place_and_counts_anew() -> None:
    vm = end(make_running(restarts=4))
    services.start_vm(vm)
    vm.refresh_from_db()
    assert (vm.state, vm.restart_at, vm.restarts) == (State.STARTING, None, 0)


def test_a_deletion_cancels_the_plan() -> None:
    vm = end(make_running())
    services.delete_vm(vm)
    vm.refresh_from_db()
    assert vm.restart_at is None


def test_another_policy_cancels_what_it_does_not_cover() -> None:
    vm = end(make_running(ALWAYS))
    services.update_vm(vm, restart_policy="on-failure")
    assert VM.objects.get(pk=vm.pk).restart_at, "it crashed: that is covered still"
    services.update_vm(vm, restart_policy="no")
    assert VM.objects.get(pk=vm.pk).restart_at is None


def test_what_was_planned_and_is_not_covered_any_more_is_dropped_when_due() -> None:
    vm = end(make_running())
    make_due(vm)
    VM.objects.filter(pk=vm.pk).update(restart_policy="no")
    assert policies.start_due() is None
    vm.refresh_from_db()
    assert (vm.restart_at, opened(vm)) == (None, [])


def test_a_clone_has_the_policy_and_no_plan() -> None:
    vm = end(make_running(ALWAYS))
    services.clone_vm(vm, name="copy")
    clone = VM.objects.get(name="copy")
    assert (clone.restart_policy, clone.restart_at, clone.restarts) == (ALWAYS, None, 0)


def test_a_vm_made_and_started_at_once_is_wanted_to_run(nudges: list[str]) -> None:
    drive = make_drive()
    operation = services.create_vm(name="web", drive=drive.name, start=True)
    operations.execute(operation.pk)  # its kernel is none, or its drive: it fails
    vm = VM.objects.get(name="web")
    assert (vm.state, vm.desired_state) == (State.FAILED, Desired.RUNNING)

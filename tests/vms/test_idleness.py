"""VMs that suspend themselves when they are idle, and wake for whoever needs them."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone

from guest_agent.sessions import SessionState
from nexus_site.core.errors import Conflict, Retryable
from nexus_site.core.models import Operation
from tests.factories import make_sample, make_vm
from tests.vms.fake_vmm import FakeVmm, install
from tests.vms.real_drives import done, make_running
from vms import idleness, services
from vms.hypervisors.base import Handle
from vms.models import VM
from vms.paths import vm_dir
from vms.services import suspension
from vms.services.suspension import is_waking
from vms.states import Desired, State
from vms.supervisor import Supervisor
from vms.transitions import move
from vms.watch import Watch

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

NEVER = math.inf


@pytest.fixture(autouse=True)
def _no_outputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(idleness, "_noted", {})


@pytest.fixture
def idle() -> VM:
    """A VM that has been ready for an hour, and is to be suspended after ten minutes."""
    vm = make_vm(name="web", state=State.READY, idle_suspend_minutes=10)
    VM.objects.filter(pk=vm.pk).update(state_since=timezone.now() - timedelta(hours=1))
    vm.refresh_from_db()
    return vm


def session(size: int, **values: object) -> SessionState:
    fields = {"id": "shell", "argv": ["sh"], "pid": 7, "user": "root", "cwd": "/", "tty": True}
    fields |= {"started": 1.0, "keep": 1024, "first": 0, "size": size, "attached": 0}
    return SessionState.parse(fields | values)


def test_a_vm_is_due_when_nothing_has_been_done_for_so_long(idle: VM) -> None:
    assert idleness.candidates() == [idle]
    assert idleness.is_due(idle, NEVER)


@pytest.mark.parametrize(
    ("values", "found"),
    [
        ({"state": State.RUNNING, "idle_suspend_minutes": 10}, False),
        ({"state": State.PAUSED, "idle_suspend_minutes": 10}, False),
        ({"state": State.READY}, False),
        ({"state": State.READY, "idle_suspend_minutes": 10, "purpose": "pool"}, False),
        ({"state": State.READY, "idle_suspend_minutes": 10}, True),
    ],
)
def test_only_ready_vms_of_people_that_want_it_are_looked_at(
    values: dict[str, object], found: bool
) -> None:
    vm = make_vm(**values)
    assert idleness.candidates() == ([vm] if found else [])


def test_a_vm_that_has_just_become_ready_is_not_due() -> None:
    assert not idleness.is_due(make_vm(state=State.READY, idle_suspend_minutes=10), NEVER)


@pytest.mark.parametrize(("quiet", "due"), [(0.0, False), (599.0, False), (601.0, True)])
def test_who_uses_its_agent_keeps_it_awake(idle: VM, quiet: float, due: bool) -> None:
    assert idleness.is_due(idle, quiet) is due


@pytest.mark.parametrize(
    ("used", "due"),
    [
        ({"cpu": 0.5}, False),
        ({"net_rx": 1e6}, False),
        ({"net_tx": 1e6}, False),
        ({"cpu": 0.5, "vmm_cpu": None}, False),
        ({"cpu": 0.5, "vmm_cpu": 0.05}, True),
        ({"cpu": 0.01, "net_rx": 100.0, "net_tx": None}, True),
    ],
)
def test_cpu_and_network_are_work(idle: VM, used: dict[str, float], due: bool) -> None:
    quiet = {"cpu": 0.0, "net_rx": 0.0, "net_tx": 0.0}
    at = int(timezone.now().timestamp())
    make_sample(idle, at=at - 120, **quiet | used)
    make_sample(idle, at=at - 10, **quiet)
    assert idleness.is_due(idle, NEVER) is due


def test_an_operation_is_work(idle: VM) -> None:
    Operation.objects.create(
        kind="vm.balloon",
        title="Let it keep less",
        subject_kind="vm",
        subject_id=idle.pk,
        actor="system",
        deadline=timezone.now() + timedelta(hours=1),
    )
    assert not idleness.is_due(idle, NEVER)


def test_what_was_seen_is_remembered(idle: VM) -> None:
    assert not idleness.is_due(idle, 60.0)
    again = VM.objects.get(pk=idle.pk)
    assert not idleness.is_due(again, NEVER), "another supervisor has not seen it"


def test_the_time_counts_from_when_it_was_set() -> None:
    vm = make_vm(state=State.READY)
    VM.objects.filter(pk=vm.pk).update(state_since=timezone.now() - timedelta(hours=1))
    services.update_vm(VM.objects.get(pk=vm.pk), idle_suspend_minutes=10)
    assert not idleness.is_due(VM.objects.get(pk=vm.pk), NEVER)


def test_a_session_that_writes_is_work_and_a_waiting_shell_is_not(idle: VM) -> None:
    assert idleness.are_quiet(idle, [])
    assert not idleness.are_quiet(idle, [session(10)]), "it is new"
    assert idle.active_at is not None
    assert idleness.are_quiet(idle, [session(10)])
    assert not idleness.are_quiet(idle, [session(11)])
    over = session(12, exit={"code": 0}, ended=2.0)
    assert idleness.are_quiet(idle, [over])


def test_what_sessions_wrote_until_the_last_work_is_no_new_work(idle: VM) -> None:
    assert not idleness.is_due(idle, 60.0)
    assert not idleness.is_noted(idle)
    idleness.note(idle, [session(10)])
    seen_again = VM.objects.get(pk=idle.pk)
    assert idleness.is_noted(seen_again)
    assert idleness.are_quiet(seen_again, [session(10)])
    assert not idleness.is_due(seen_again, 0.0)
    assert not idleness.is_noted(seen_again), "it has worked since"


def test_what_is_noted_of_a_vm_goes_when_its_vmm_has_ended(idle: VM) -> None:
    supervisor = Supervisor()
    runs = make_vm(name="runs", state=State.READY, idle_suspend_minutes=10)
    for vm in (idle, runs):
        idleness.note(vm, [session(10)])
        supervisor._watches[int(vm.id)] = Watch(
            supervisor, vm, Handle(vm_dir(vm), 1, 1.0, 1, 1.0, "tcg")
        )
    supervisor._watches[int(idle.id)].over = True
    supervisor._forget_ended()
    assert not idleness.is_noted(idle)
    assert idleness.is_noted(runs)
    assert list(supervisor._watches) == [int(runs.id)]


def test_it_is_suspended_with_the_reason(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    suspend_idle(vm, monkeypatch)
    last = vm.history.last()
    assert last is not None
    assert (last.to_state, last.reason, last.actor) == ("suspended", "idle for 10 min", "system")
    assert vm.saved_memory["reason"] == "idle"


def suspend_idle(vm: VM, monkeypatch: pytest.MonkeyPatch) -> FakeVmm:
    vmm = install(monkeypatch)
    vmm.run(make_running(vm))
    vm.idle_suspend_minutes = 10
    vm.save()
    idleness.suspend(vm)
    done(Operation.objects.get(kind="vm.suspend"))
    vm.refresh_from_db()
    return vmm


def test_a_busy_vm_is_let_be(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).run(make_running(vm))
    services.snapshot_vm(vm)
    idleness.suspend(vm)
    assert not Operation.objects.filter(kind="vm.suspend").exists()


def test_who_needs_it_wakes_it_once(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    suspend_idle(vm, monkeypatch)
    found = services.ready_vm("web")
    assert (found.state, found.desired_state) == ("starting", Desired.RUNNING)
    assert is_waking(found)
    assert services.ready_vm("web").state == State.STARTING
    assert Operation.objects.filter(kind="vm.start").count() == 1
    last = found.history.last()
    assert last is not None
    assert last.reason == "woken: somebody asked its agent"


def test_who_only_reconnects_does_not_wake_it(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    suspend_idle(vm, monkeypatch)
    with pytest.raises(Conflict) as refused:
        services.ready_vm("web", wake=False)
    assert refused.value.code == "vm-asleep"
    assert not Operation.objects.filter(kind="vm.start").exists()
    services.ready_vm("web")
    assert services.ready_vm("web", wake=False).state == State.STARTING, "somebody has woken it"


@pytest.mark.parametrize("held_as", [State.PAUSED, State.SUSPENDED])
def test_who_comes_while_it_is_being_suspended_waits_and_wakes_it(
    vm: VM, monkeypatch: pytest.MonkeyPatch, held_as: State
) -> None:
    suspend_idle(vm, monkeypatch)
    Operation.objects.filter(kind="vm.suspend").update(state="running")
    VM.objects.filter(pk=vm.pk).update(state=held_as)
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            Operation.objects.filter(kind="vm.suspend").update(state="succeeded")
            VM.objects.filter(pk=vm.pk).update(state=State.SUSPENDED)

    monkeypatch.setattr(suspension.time, "sleep", look)
    assert services.ready_vm("web").state == State.STARTING
    assert len(looks) == 2


@pytest.mark.parametrize("held_as", [State.PAUSED, State.SUSPENDED])
def test_who_waits_too_long_for_it_is_to_try_again(
    vm: VM, monkeypatch: pytest.MonkeyPatch, settings: Any, held_as: State
) -> None:
    suspend_idle(vm, monkeypatch)
    Operation.objects.filter(kind="vm.suspend").update(state="running")
    VM.objects.filter(pk=vm.pk).update(state=held_as)
    settings.NEXUS = settings.NEXUS.model_copy(update={"agent_ready_timeout": 0.1})
    with pytest.raises(Retryable) as told:
        services.ready_vm("web")
    assert (told.value.code, "Try again." in told.value.hint) == ("vm-held", True)


def test_one_that_cannot_start_is_no_matter_of_waiting(
    vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    suspend_idle(vm, monkeypatch)
    vm.attachments.all().delete()
    with pytest.raises(Conflict, match="root drive"):
        services.ready_vm("web")


def test_what_a_person_suspended_stays_so(vm: VM, monkeypatch: pytest.MonkeyPatch) -> None:
    install(monkeypatch).run(make_running(vm))
    done(services.suspend_vm(vm))
    with pytest.raises(Conflict, match="is suspended"):
        services.ready_vm("web")


def test_a_vm_that_boots_wakes_nobody() -> None:
    vm = make_vm()
    move(vm, State.STARTING, "start requested")
    assert not is_waking(vm)
    with pytest.raises(Retryable, match="is starting"):
        services.ready_vm(vm.ref)


@pytest.mark.parametrize("minutes", [-1, 365 * 24 * 60 + 1])
def test_a_time_that_cannot_be_is_refused(minutes: int) -> None:
    with pytest.raises(Exception, match="suspended after 1 to") as caught:
        services.update_vm(make_vm(), idle_suspend_minutes=minutes)
    assert caught.value.code == "idle-range"  # type: ignore[attr-defined]


def test_never_is_said_with_none_or_nothing() -> None:
    vm = make_vm(idle_suspend_minutes=10)
    assert services.update_vm(vm, idle_suspend_minutes=0).idle_suspend_minutes is None

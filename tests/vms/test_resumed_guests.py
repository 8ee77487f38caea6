"""A watch and the real agent of a guest that goes on from a saved memory, or is paused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, TypeVar

import pytest
from django.db import connection
from django.utils import timezone

from guest_agent.clock import TRIES
from tests.factories import make_vm
from tests.guest_agent.conftest import AgentProcess, agent, agent_binary
from tests.vms.test_watch import Database, Driver, driver, watched
from vms import live_drives, silence, watch
from vms import provisioning_records as records
from vms.models import VM, Boot, Memory, Provisioning
from vms.services import provisioning as rules
from vms.services.provisioning import GivenFile
from vms.states import State
from vms.transitions import move
from vms.watch import Watch

__all__ = ["agent", "agent_binary", "driver"]  # fixtures

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
PATIENCE, LOOK = 60.0, 0.02  # seconds
OLD_MACHINE_ID = "0123456789abcdef0123456789abcdef\n"
HELLO = {"boot_id": "b", "agent_version": "0.4.0"}


@pytest.fixture
def vm(driver: Driver, agent: AgentProcess) -> VM:
    """Its VMM runs, and the start that began it is not written down yet."""
    driver.socket = agent.socket
    agent.write("etc/machine-id", OLD_MACHINE_ID)
    agent.write("etc/nexus/identity", "aaaaaaaaaaaac\n")
    vm = make_vm(name="brave-otter", vmm="firecracker")
    move(vm, State.STARTING, "start requested")
    Boot.objects.create(vm=vm, number=1, launched_at=timezone.now())
    return vm


def runs(vm: VM, driver: Driver, resumed_from: str) -> None:
    """What a start writes down."""
    vm.boots.update(handle=driver.handle.to_dict(), resumed_from=resumed_from)
    move(vm, State.RUNNING, "the VMM runs")


async def ask(call: Callable[[], T]) -> T:
    database = Database()
    try:
        return await database.in_database(call)
    finally:
        await database.in_database(lambda: connection.close())
        database.thread.shutdown()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not await ask(condition):  # noqa: ASYNC110 - it is in the database
            await asyncio.sleep(LOOK)


def is_ready(vm: VM) -> bool:
    vm.refresh_from_db()
    return vm.state == State.READY


def root_of(vm: VM) -> str:
    return str(vm.attachments.get().drive.ref)


async def test_a_resumed_guest_is_itself_before_it_is_ready(
    vm: VM, driver: Driver, agent: AgentProcess
) -> None:
    agent.start()
    async with watched(vm, driver):
        await until(lambda: len(agent.calls()) > 0)
        assert not (agent.sandbox / "etc/hostname").exists(), "it is not known how it was started"
        await ask(lambda: runs(vm, driver, Memory.WARM))
        await until(lambda: is_ready(vm))
    assert [line.split()[0] for line in agent.calls()[:2]] == ["time", "entropy"]
    assert f"interface eth0 {vm.mac} 10.0.2.15/24 via 10.0.2.2" in agent.calls()
    assert agent.read("etc/hostname") == "brave-otter\n"
    assert vm.agent["hostname"] == "brave-otter", "its hello was that of the one it was"
    assert agent.read("etc/machine-id") != OLD_MACHINE_ID
    assert agent.read("etc/nexus/identity").strip() == await ask(lambda: root_of(vm))
    assert agent.read("run/nexus/boot-id").strip() == vm.agent["boot_id"]
    assert vm.agent["boot"] == {"agent_started": None, "root_mounted": None, "settled": None}
    boot = await ask(vm.boots.get)
    assert boot.seconds_to_hello is not None
    assert 0 < boot.seconds_to_hello < (timezone.now() - boot.created_at).total_seconds() + 1
    moved = await ask(lambda: vm.history.latest("number"))
    assert "said hello after" in moved.reason
    assert "warning" not in moved.detail


async def test_a_guest_is_not_ready_before_it_has_answered_who_it_is(
    vm: VM, driver: Driver, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may still be the one that it is a copy of."""
    monkeypatch.setattr(watch, "IDENTITY_TIMEOUT", 0.0)
    agent.start()
    await ask(lambda: runs(vm, driver, Memory.CHECKPOINT))
    async with watched(vm, driver):
        await until(lambda: [call.split()[0] for call in agent.calls()].count("time") > TRIES)
        assert not await ask(lambda: is_ready(vm)), "it was met twice"
        monkeypatch.setattr(watch, "IDENTITY_TIMEOUT", PATIENCE)
        await until(lambda: is_ready(vm))
    assert agent.read("etc/machine-id") != OLD_MACHINE_ID
    moved = await ask(lambda: vm.history.latest("number"))
    assert "warning" not in moved.detail


async def test_a_start_keeps_its_boot_id_and_the_next_one_has_another(
    vm: VM, driver: Driver, agent: AgentProcess
) -> None:
    agent.start()
    await ask(lambda: runs(vm, driver, Memory.CHECKPOINT))
    found = []
    for _ in range(2):
        async with watched(vm, driver):
            await until(lambda: vm.heartbeat_at if is_ready(vm) else None)
            found.append(vm.agent["boot_id"])
        await ask(lambda: VM.objects.update(state=State.RUNNING, heartbeat_at=None))
    await ask(lambda: vm.boots.update(ended_at=timezone.now()))
    await ask(lambda: Boot.objects.create(vm=vm, number=2, launched_at=timezone.now()))
    await ask(lambda: vm.boots.filter(number=2).update(handle={"pid": 1}, resumed_from="warm"))
    told = await ask(lambda: records.who(vm))
    assert told is not None
    assert found[0] == found[1] != told.configuration.boot_id


async def test_a_suspended_guest_keeps_its_boot_id(
    vm: VM, driver: Driver, agent: AgentProcess
) -> None:
    agent.start()
    await ask(lambda: runs(vm, driver, Memory.SUSPENDED))
    async with watched(vm, driver):
        await until(lambda: is_ready(vm))
    assert not (agent.sandbox / "run/nexus/boot-id").exists()
    assert vm.agent["boot_id"] == agent.read("/proc/sys/kernel/random/boot_id").strip()
    assert vm.agent["boot"]["settled"] is None


async def test_a_guest_that_booted_has_the_times_of_its_boot(
    vm: VM, driver: Driver, agent: AgentProcess
) -> None:
    agent.start()
    await ask(lambda: runs(vm, driver, ""))
    async with watched(vm, driver):
        await until(lambda: is_ready(vm))
    assert not (agent.sandbox / "run/nexus/boot-id").exists()
    assert vm.agent["boot"]["settled"] > 0


async def test_a_paused_guest_is_not_called_silent(
    vm: VM, driver: Driver, agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked nothing meanwhile; its clock is set when it goes on, on the same connection."""
    silent: list[float] = []
    monkeypatch.setattr(silence, "notice", lambda vm, seconds, signs: silent.append(seconds))
    agent.start()
    await ask(lambda: runs(vm, driver, ""))
    async with watched(vm, driver) as one:
        await until(lambda: is_ready(vm))
        line = one.agent
        live_drives.note_paused(vm, True)
        await ask(lambda: move(vm, State.PAUSED, "somebody paused it"))
        one._answered_at -= 1000
        silent.clear()
        await until(lambda: silent)
        assert silent[0] < 1000
        answered = await until_steady(one)
        calls = len(agent.calls())
        await asyncio.sleep(0.5)  # several heartbeats' time
        assert (one.agent, len(agent.calls())) == (line, calls)
        assert answered == await ask(lambda: VM.objects.get().heartbeat_at)
        live_drives.note_paused(vm, False)
        await ask(lambda: move(vm, State.READY, "somebody let it go on"))
        await until(lambda: len(agent.calls()) > calls)
        assert one.agent is line
    assert agent.calls()[calls].startswith("time ")


async def until_steady(one: Watch) -> Any:
    """When the last heartbeat came that was asked for before the pause."""
    before = None
    async with asyncio.timeout(PATIENCE):
        while before != (now := await ask(lambda: VM.objects.get().heartbeat_at)):
            before = now
            await asyncio.sleep(0.3)
    return before


# What a guest is given


@pytest.fixture
def provisioned(vm: VM, driver: Driver) -> Provisioning:
    runs(vm, driver, "")
    return rules.replace_provisioning(
        vm, env={"A": "b"}, script="x", files=[GivenFile("/key", b"v")]
    )


def test_a_guest_of_a_warm_template_is_provisioned_as_at_a_first_boot(
    vm: VM, provisioned: Provisioning
) -> None:
    vm.boots.update(resumed_from=Memory.WARM)
    Provisioning.objects.update(boot_id="")
    work = records.begin(vm, HELLO, timezone.now(), "")
    assert work is not None
    assert (work.script, len(work.files)) == ("x", 1)


def test_a_fork_gets_its_settings_and_neither_files_nor_script(
    vm: VM, provisioned: Provisioning
) -> None:
    vm.boots.update(resumed_from=Memory.CHECKPOINT)
    Provisioning.objects.update(boot_id="")
    for _ in range(2):  # the worker may end in between
        work = records.begin(vm, HELLO, timezone.now(), "")
        assert work is not None
        assert (work.script, work.files, work.env) == ("", (), {"A": "b"})
        last = work
    records.end(vm, last, None)
    vm.refresh_from_db()
    assert vm.state == State.READY
    vm.boots.update(resumed_from="")
    again = records.begin(vm, HELLO | {"boot_id": "another"}, timezone.now(), "")
    assert again is not None
    assert (again.script, len(again.files)) == ("", 1), "the script has run, before the fork"


def test_a_vm_that_goes_back_to_its_checkpoint_keeps_a_script_for_its_next_boot(
    vm: VM, provisioned: Provisioning
) -> None:
    """One that has been changed since, or is to run again."""
    vm.boots.update(resumed_from=Memory.CHECKPOINT)
    Provisioning.objects.update(boot_id="an earlier one")
    work = records.begin(vm, HELLO, timezone.now(), "")
    assert work is not None
    assert work.script == ""
    assert Provisioning.objects.get().script_drive is None


def test_a_suspended_vm_is_ready_at_once(vm: VM, provisioned: Provisioning) -> None:
    vm.boots.update(resumed_from=Memory.SUSPENDED)
    Provisioning.objects.update(boot_id="b", phase=Provisioning.Phase.DONE)
    assert records.begin(vm, HELLO, timezone.now(), "") is None
    vm.refresh_from_db()
    assert vm.state == State.READY

"""A VMM under watch: guests that halt, callers that call anew, ends that are told late."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
from django.db import connection

from tests.factories import make_vm
from vms import outcomes, watch
from vms.hypervisors.base import AgentSocket, Exit, Handle
from vms.models import VM, Boot
from vms.states import State
from vms.watch import Watch

pytestmark = pytest.mark.django_db(transaction=True)

T = TypeVar("T")
PATIENCE, LOOK = 60.0, 0.02  # seconds


class Driver:
    """Of a VMM that is a process which does nothing, and whose guest may have halted."""

    name = "firecracker"

    def __init__(self, directory: Path) -> None:
        self.process = subprocess.Popen(["sleep", "600"])
        started = psutil.Process(self.process.pid).create_time()
        self.handle = Handle(directory, self.process.pid, started, 1, 1, "kvm")
        self.halted = False
        self.metrics_now: dict[str, Any] = {}
        self.socket = directory / "v.sock_1024"
        self.kills = 0

    def adopt(self, _: Path) -> Handle | Exit:
        code = self.process.poll()
        return self.handle if code is None else Exit(None, -code, 1.0)

    def kill(self, _: Handle) -> Exit:
        self.kills += 1
        self.process.kill()
        self.process.wait()
        return Exit(None, 9, 1.0)

    def has_halted(self, _: Path) -> bool:
        return self.halted

    def metrics(self, _: Handle) -> dict[str, Any]:
        return self.metrics_now

    def agent_socket(self, _: Path) -> AgentSocket:
        return AgentSocket(self.socket, guest_dials=True)

    def cleanup(self, _: Path) -> None:
        pass


class Database:
    """One thread, as the supervisor has."""

    def __init__(self) -> None:
        self.thread = ThreadPoolExecutor(1)

    async def in_database(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self.thread, call)


@pytest.fixture
def driver(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nudges: list[str], settings: Any
) -> Iterator[Driver]:
    driver = Driver(tmp_path)
    for module in (watch, outcomes):
        monkeypatch.setattr(module, "driver_of", lambda vm: driver)
    settings.NEXUS = settings.NEXUS.model_copy(update={"heartbeat_interval": 0.1})
    yield driver
    driver.kill(driver.handle)


@pytest.fixture
def vm(driver: Driver) -> VM:
    vm = make_vm(state=State.READY, vmm="firecracker")
    Boot.objects.create(vm=vm, number=1, handle=driver.handle.to_dict())
    return vm


@contextlib.asynccontextmanager
async def watched(vm: VM, driver: Driver) -> Any:
    database = Database()
    one = Watch(database, vm, driver.handle)
    one.start()
    try:
        yield one
    finally:
        await one.close()
        await database.in_database(lambda: connection.close())
        database.thread.shutdown()


async def _until(condition: Callable[[], object]) -> None:
    """Look now and then, in a thread of its own."""
    for _ in range(int(PATIENCE / LOOK)):
        if await asyncio.to_thread(condition):
            return
        await asyncio.sleep(LOOK)
    raise TimeoutError


async def test_a_guest_that_switched_itself_off_ends_its_vmm(vm: VM, driver: Driver) -> None:
    async with watched(vm, driver) as one:
        await asyncio.sleep(0.3)
        assert driver.kills == 0
        driver.halted = True
        await _until(lambda: _moves(vm)[-1][0] == State.STOPPED)
        moves = await one._database.in_database(lambda: _moves(vm))
    assert moves[-2:] == [
        (State.STOPPING, "the guest shut itself down"),
        (State.STOPPED, "the VMM was killed by signal 9 (SIGKILL)"),
    ]


def _moves(vm: VM) -> list[tuple[str, str]]:
    try:
        return list(vm.history.values_list("to_state", "reason"))
    finally:
        connection.close()


async def test_who_calls_anew_is_met_though_the_old_line_looks_alive(
    vm: VM, driver: Driver
) -> None:
    async with watched(vm, driver):
        await _until(driver.socket.exists)
        with _call(driver.socket) as old:
            assert await asyncio.to_thread(old.recv, 1), "it is greeted"
            with _call(driver.socket) as new:
                while await asyncio.to_thread(old.recv, 4096):
                    pass
                assert await asyncio.to_thread(new.recv, 1)
    assert not driver.socket.exists()


async def test_a_line_that_cannot_be_opened_yet_is_opened_later(
    vm: VM, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "REDIAL_MOST", 0.05)
    driver.socket = driver.socket.parent / "jail" / "v.sock_1024"
    async with watched(vm, driver):
        await asyncio.sleep(0.2)
        driver.socket.parent.mkdir()
        await _until(driver.socket.exists)


def _call(path: Path) -> socket.socket:
    caller = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    caller.settimeout(PATIENCE)
    caller.connect(str(path))
    return caller


async def test_counters_are_kept_now_and_then(
    vm: VM, driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "METRICS_EVERY", 0.05)
    driver.metrics_now = {"net": {"rx": 5, "tx": 0}, "seccomp": {"faults": 0}, "utc": 0}

    async with watched(vm, driver) as one:
        await _until(lambda: _kept(vm))
        kept = await one._database.in_database(lambda: vm.boots.get().metrics)
    assert kept == {"net": {"rx": 5}}, "what has counted nothing is left out"


def _kept(vm: VM) -> bool:
    try:
        return bool(vm.boots.get().metrics)
    finally:
        connection.close()


def test_the_last_counters_are_kept_at_the_end(vm: VM, driver: Driver) -> None:
    driver.metrics_now = {"net": {"rx": 7}}
    outcomes.vmm_ended(vm, Exit(0, None, 1.0), driver.handle)
    boot = vm.boots.get()
    assert (boot.metrics, boot.ended_at is not None) == ({"net": {"rx": 7}}, True)


def test_the_end_of_an_old_vmm_does_not_end_the_one_that_runs_now(vm: VM, driver: Driver) -> None:
    old = driver.handle
    vm.boots.update(handle=old.to_dict() | {"started": old.started + 1})
    outcomes.vmm_ended(vm, Exit(None, 9, 1.0), old)
    vm.refresh_from_db()
    assert vm.state == State.READY
    outcomes.guest_halted(vm, old)
    outcomes.keep_metrics(vm, old, {"net": 1})
    assert (driver.kills, vm.boots.get().metrics) == (0, {})

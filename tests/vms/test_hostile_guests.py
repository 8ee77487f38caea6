"""A hostile guest beside a good one, both watched as the supervisor does."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from django.db import connection

from guest_agent import transports
from guest_agent.exec import Program
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Flag, Stream, Type
from nexus_site.core.errors import NexusError
from tests.factories import make_vm
from tests.guest_agent.guests import HELLO, Guest, announcement, frame
from tests.guest_agent.test_fuzz import HEARTBEAT, said_wrongly
from tests.vms.fake_agents import FakeAgent, World
from tests.vms.test_watch import Database, Driver, _until
from vms import outcomes, watch
from vms.agents import GatewayAgent
from vms.gateway import SOCKET
from vms.models import VM, Boot
from vms.states import State
from vms.watch import REDIAL_FIRST, REDIAL_MOST, Watch

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("nudges")]

SEED = int(os.environ.get("FUZZ_SEED", "7"))
SECONDS = 3.0  # that each attack goes on
Attack = Callable[[Guest, random.Random], Awaitable[None]]


async def answer(stream: Stream) -> None:
    """What a good agent does: its heart beats, and it takes what it is given."""
    header = await read_header(stream)
    told = HEARTBEAT | {"time": time.time()} if header["op"] == "heartbeat" else {"ok": True}
    await stream.write(encode_header(told))
    stream.write_eof()


async def storm(guest: Guest, chance: random.Random) -> None:
    """Calls and hangs up."""


async def greet_and_leave(guest: Guest, chance: random.Random) -> None:
    await guest.shake_hands()
    await guest.send(announcement(2, HELLO))


async def garbage(guest: Guest, chance: random.Random) -> None:
    for _ in range(200):
        await guest.send(chance.randbytes(20_000))


async def mutter(guest: Guest, chance: random.Random) -> None:
    await guest.shake_hands()
    await guest.send(said_wrongly(chance))


async def flood(guest: Guest, chance: random.Random) -> None:
    """Pings and streams without end, whose answers nobody reads."""
    await guest.shake_hands()
    await guest.send(announcement(2, HELLO))
    pings = b"".join(frame(Type.PING, Flag.SYN, 0, n) for n in range(5000))
    for at in range(4, 20_000, 2):
        await guest.send(pings if at % 100 == 0 else announcement(at, {"op": "news"}))


async def crawl(guest: Guest, chance: random.Random) -> None:
    """One byte now and then."""
    for byte in announcement(2, HELLO):
        await guest.send(bytes([byte]))
        await asyncio.sleep(0.05)


class Neighbours:
    """Two VMs under watch on one loop and one database thread."""

    def __init__(self, good: VM, bad: VM, drivers: dict[int, Driver]) -> None:
        self.good, self.bad, self.drivers = good, bad, drivers
        self.calls = 0
        self.database = Database()
        self.watches = [Watch(self.database, vm, drivers[vm.pk].handle) for vm in (good, bad)]

    async def call(self, vm: VM) -> Guest:
        return Guest(await transports.connect(self.drivers[vm.pk].socket))

    async def attack(self, attack: Attack, chance: random.Random) -> float:
        """Again and again; the seconds that it took."""
        began = time.monotonic()
        while (passed := time.monotonic() - began) < SECONDS:
            with contextlib.suppress(OSError, EOFError, AssertionError, TimeoutError):
                guest = await self.call(self.bad)
                try:
                    async with asyncio.timeout(SECONDS):
                        await attack(guest, chance)
                finally:
                    guest.writer.transport.abort()
            self.calls += 1
            await asyncio.sleep(0.001)
        return passed

    async def read(self, call: Callable[[], Any]) -> Any:
        return await self.database.in_database(call)


@pytest.fixture
async def neighbours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Any
) -> AsyncIterator[Neighbours]:
    drivers: dict[int, Driver] = {}

    def make(name: str) -> VM:
        (tmp_path / name).mkdir()
        vm = make_vm(name=name, state=State.READY, vmm="firecracker")
        drivers[vm.pk] = Driver(tmp_path / name)
        Boot.objects.create(vm=vm, number=1, handle=drivers[vm.pk].handle.to_dict())
        connection.close()
        return vm

    for module in (watch, outcomes):
        monkeypatch.setattr(module, "driver_of", lambda vm: drivers[vm.pk])
    settings.NEXUS = settings.NEXUS.model_copy(update={"heartbeat_interval": 0.1})
    made = [await asyncio.to_thread(make, name) for name in ("good", "bad")]
    both = Neighbours(made[0], made[1], drivers)
    for one in both.watches:
        one.start()
    yield both
    for one in both.watches:
        await one.close()
    await both.read(lambda: connection.close())  # of that thread
    both.database.thread.shutdown()
    for driver in drivers.values():
        driver.kill(driver.handle)


@contextlib.asynccontextmanager
async def good_agent(neighbours: Neighbours) -> AsyncIterator[list[float]]:
    """The good VM's agent is connected; when the host has asked for its heart."""
    beats: list[float] = []

    async def serve(stream: Stream) -> None:
        beats.append(time.monotonic())
        await answer(stream)

    await _until(neighbours.drivers[neighbours.good.pk].socket.exists)
    fake = FakeAgent(await neighbours.call(neighbours.good), serve)
    await fake.run()
    await _until(lambda: len(beats) > 2)
    yield beats
    await fake.close()


@pytest.mark.parametrize(
    "attack", [storm, greet_and_leave, garbage, mutter, flood, crawl], ids=lambda a: a.__name__
)
async def test_no_guest_keeps_another_from_being_heard(
    neighbours: Neighbours, attack: Attack
) -> None:
    async with good_agent(neighbours) as beats:
        before = len(beats)
        passed = await neighbours.attack(attack, random.Random(SEED))
        during = beats[before:]
        assert len(during) >= SECONDS, "its heart is asked for as before"
        gaps = [late - early for early, late in pairwise(during)]
        assert max(gaps) < passed, "never for long not"
        state = await neighbours.read(lambda: VM.objects.get(pk=neighbours.good.pk).state)
        assert state == State.READY
        moves = await neighbours.read(lambda: list(neighbours.good.history.all()))
        assert len(moves) == 1, "and nothing was said of it"


async def test_a_guest_that_calls_again_and_again_is_met_ever_less_often(
    neighbours: Neighbours, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pauses grow, although each call begins with a proper hello."""
    met = 0
    meet = Watch._meet

    async def counted(one: Watch, line: Any) -> str:
        nonlocal met
        met += one.vm.pk == neighbours.bad.pk
        return await meet(one, line)

    monkeypatch.setattr(Watch, "_meet", counted)
    passed = await neighbours.attack(greet_and_leave, random.Random(SEED))
    most = 3 + (passed + REDIAL_MOST) / REDIAL_FIRST / 4
    assert met <= most, f"{neighbours.calls} calls in {passed:.0f} s"


async def test_lies_through_the_gateway_are_errors_for_people(settings: Any) -> None:
    """Any bytes in place of an answer; a good agent beside it goes on answering."""
    chance = random.Random(SEED)
    good, bad = VM(id=12345, name="good"), VM(id=12346, name="bad")
    world = World(Path(settings.NEXUS.run_dir) / SOCKET)
    await world.gateway.open(world.path)

    async def lie(stream: Stream) -> None:
        said = said_wrongly(chance)[:100_000]
        await stream.write(said[chance.randrange(len(said)) :])
        chance.choice([stream.write_eof, stream.reset])()

    async def ask(vm: VM) -> None:
        agent = GatewayAgent(vm)
        with contextlib.suppress(NexusError):
            execution = await agent.start(Program(["true"]), timeout=20)
            try:
                while await execution.read():
                    pass
            finally:
                execution.close()

    try:
        await world.add(good, answer)
        await world.add(bad, lie)
        for _ in range(20):
            await asyncio.gather(*(ask(bad) for _ in range(10)))
            told = await GatewayAgent(good).exchange({"op": "heartbeat"}, 60)
            assert told["ok"] is True
        assert world.agents[bad.ref].hello.agent_version == HELLO["agent_version"]
    finally:
        await world.close()

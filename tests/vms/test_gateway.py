"""The agent gateway between two ends that may both misbehave; sessions are real ones."""

from __future__ import annotations

import asyncio
import math
import os
import random
import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from guest_agent import transports
from guest_agent.exec import Program
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import WINDOW, Stream
from nexus_site.core.errors import Conflict, Invalid, NexusError, Retryable
from tests.vms.fake_agents import PATIENCE, World
from vms import gateway
from vms.agents import GatewayAgent, GatewayStream
from vms.gateway import LENGTH, MAX_FRAME, SOCKET
from vms.models import VM

MIB = 1 << 20


@pytest.fixture
async def world(settings: Any) -> AsyncIterator[World]:
    path = Path(settings.NEXUS.run_dir) / SOCKET
    made = World(path)
    await made.gateway.open(path)
    yield made
    await made.close()


@pytest.fixture
def vm() -> VM:
    return VM(id=12345, name="one")


@pytest.fixture
def other() -> VM:
    return VM(id=1, name="other")


async def echo(stream: Stream) -> None:
    """Answers, then sends back what comes, until the half-close."""
    await read_header(stream)
    await stream.write(encode_header({"ok": True}))
    while data := await stream.read():
        await stream.write(data)
    stream.write_eof()


async def deaf(stream: Stream) -> None:
    """Takes nothing and says nothing."""
    await asyncio.Event().wait()


async def flood(stream: Stream) -> None:
    await read_header(stream)
    while True:
        await stream.write(b"x" * WINDOW)


@asynccontextmanager
async def opened(vm: VM) -> AsyncIterator[GatewayStream]:
    stream = await GatewayAgent(vm).open_stream({"op": "echo"})
    try:
        async with asyncio.timeout(PATIENCE):
            yield stream
    finally:
        stream.reset()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


async def test_the_socket_is_its_owner_s(world: World) -> None:
    assert stat.S_IMODE(world.path.stat().st_mode) == 0o600


async def test_bytes_go_both_ways_up_to_the_half_close(world: World, vm: VM) -> None:
    await world.add(vm, echo)
    sent = random.Random(1).randbytes(5 * MIB + 3)
    async with opened(vm) as stream:
        assert await read_header(stream) == {"ok": True}

        async def give() -> None:
            await stream.write(sent)
            stream.write_eof()

        giving = asyncio.create_task(give())
        got = bytearray()
        while data := await stream.read():
            got += data
        await giving
        assert got == sent
        assert await stream.read() == b"", "an end is an end"


async def test_why_there_is_no_agent_is_told(world: World, vm: VM) -> None:
    async with opened(vm) as stream:
        with pytest.raises(Conflict, match="is stopped") as caught:
            await stream.read()
    assert caught.value.code == "vm-not-ready"


async def test_a_worker_that_is_down_is_told(world: World, vm: VM) -> None:
    await world.gateway.close()
    with pytest.raises(Retryable) as caught:
        await GatewayAgent(vm).open_stream({"op": "echo"})
    assert caught.value.code == "worker-down"


async def test_a_worker_that_ends_midway_is_told(world: World, vm: VM) -> None:
    await world.add(vm, deaf)
    async with opened(vm) as stream:
        reading = asyncio.create_task(stream.read())
        await until(lambda: world.gateway._streams)
        await world.gateway.close()
        with pytest.raises(Retryable, match="worker was restarted") as caught:
            await reading
        assert caught.value.code == "agent-gone"
        with pytest.raises(Retryable):
            await stream.write(b"x" * 10 * MIB)


async def test_a_guest_that_is_lost_midway_is_told(world: World, vm: VM) -> None:
    agent = await world.add(vm, deaf)
    async with opened(vm) as stream:
        reading = asyncio.create_task(stream.read())
        await until(lambda: world.gateway._streams)
        await agent.close()
        with pytest.raises(Retryable, match="connection to the VM's agent ended") as caught:
            await reading
    assert caught.value.code == "agent-gone"


async def test_a_client_that_leaves_resets_the_guest_s_stream(world: World, vm: VM) -> None:
    seen: list[BaseException] = []

    async def wait(stream: Stream) -> None:
        await read_header(stream)
        try:
            await stream.read()
        except Retryable as error:
            seen.append(error)

    await world.add(vm, wait)
    async with opened(vm) as stream:
        await until(lambda: world.gateway._streams)
        await asyncio.sleep(0)
        assert not seen
        stream.reset()
    await until(lambda: seen)
    await until(lambda: not world.gateway._streams)


async def test_a_client_that_leaves_after_its_half_close_resets_too(world: World, vm: VM) -> None:
    """A half-close alone would look the same to a relay of bare bytes."""
    ends: list[str] = []

    async def slow_answer(stream: Stream) -> None:
        await read_header(stream)
        while await stream.read():
            pass
        ends.append("half-close")
        try:
            await flood_on(stream)
        except Retryable:
            ends.append("reset")

    async def flood_on(stream: Stream) -> None:
        while True:
            await stream.write(b"x" * 1000)

    await world.add(vm, slow_answer)
    async with opened(vm) as stream:
        stream.write_eof()
        await until(lambda: ends == ["half-close"])
        stream.reset()
    await until(lambda: ends == ["half-close", "reset"])


async def test_a_client_that_does_not_read_stops_only_itself(
    world: World, vm: VM, other: VM
) -> None:
    sent = 0

    async def count(stream: Stream) -> None:
        nonlocal sent
        await read_header(stream)
        while True:
            await stream.write(b"x" * 1000)
            sent += 1000

    agent = await world.add(vm, count)
    await world.add(other, echo)
    async with opened(vm):
        await until(lambda: sent > WINDOW)
        before = -1
        while before != sent:  # it comes to rest: whatever is on its way has bounds
            before = sent
            await asyncio.sleep(0.2)
        assert sent < 2 * MIB
        await echoes(other)
        assert await agent.ping(PATIENCE) >= 0, "its own agent answers as well"


async def test_a_guest_that_does_not_read_stops_only_its_own_stream(
    world: World, vm: VM, other: VM
) -> None:
    agent = await world.add(vm, deaf)
    await world.add(other, echo)
    async with opened(vm) as stream:
        writing = asyncio.create_task(stream.write(b"x" * 10 * MIB))
        await until(lambda: world.gateway._streams)
        await echoes(other)
        assert await agent.ping(PATIENCE) >= 0
        assert not writing.done()
        writing.cancel()


async def test_a_flood_leaves_others_their_turn(world: World, vm: VM, other: VM) -> None:
    await world.add(vm, flood)
    await world.add(other, echo)
    async with opened(vm) as stream:

        async def drain() -> None:
            while await stream.read():
                pass

        draining = asyncio.create_task(drain())
        for _ in range(20):
            await echoes(other)
        draining.cancel()


async def echoes(vm: VM) -> None:
    async with opened(vm) as stream:
        assert await read_header(stream) == {"ok": True}
        await stream.write(b"hello")
        assert await stream.read_exactly(5) == b"hello"


@pytest.mark.parametrize(
    ("op", "held", "used"),
    [
        ("exec", True, True),
        ("connect", True, True),
        ("read", False, True),
        ("sessions", False, False),
    ],
)
async def test_what_keeps_a_vm_in_use_and_until_when(
    world: World, vm: VM, op: str, held: bool, used: bool
) -> None:
    await world.add(vm, echo)
    gateway = world.gateway
    assert gateway.quiet_seconds(vm.ref) == math.inf
    stream = await GatewayAgent(vm).open_stream({"op": op})
    async with asyncio.timeout(PATIENCE):
        assert await read_header(stream) == {"ok": True}
        assert (gateway.quiet_seconds(vm.ref) == 0.0) is held
        stream.write_eof()
        assert await stream.read() == b""
    assert gateway.quiet_seconds(vm.ref) != 0.0, "the guest has said all"
    assert (gateway.quiet_seconds(vm.ref) < PATIENCE) is used
    stream.reset()
    await until(lambda: not gateway._streams)
    assert not gateway._held


async def test_streams_of_a_vm_are_bounded_and_others_are_not_hurt(
    world: World, vm: VM, other: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_STREAMS_OF_VM", 3)
    await world.add(vm, deaf)
    await world.add(other, echo)
    streams = [await GatewayAgent(vm).open_stream({"op": "echo"}) for _ in range(3)]
    await until(lambda: world.gateway._streams[vm.ref] == 3)
    async with opened(vm) as stream:
        with pytest.raises(Retryable, match="Too much") as caught:
            await stream.read()
    assert caught.value.code == "agent-busy"
    await echoes(other)
    for each in streams:
        each.reset()
    await until(lambda: not world.gateway._streams)


async def test_streams_in_all_are_bounded(
    world: World, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "MAX_STREAMS", 2)
    await world.add(vm, deaf)
    streams = [await GatewayAgent(vm).open_stream({"op": "echo"}) for _ in range(2)]
    await until(lambda: len(world.gateway._tasks) == 2)
    async with opened(vm) as stream:
        with pytest.raises(Retryable, match="Too much"):
            await stream.read()
    for each in streams:
        each.reset()


async def test_a_client_that_never_says_what_it_wants_is_sent_away(
    world: World, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gateway, "OPENING_TIMEOUT", 0.2)
    reader, writer = await transports.connect(world.path)
    writer.write(b"\0\0")
    async with asyncio.timeout(PATIENCE):
        answer = await reader.read()
    assert b"no request" in answer
    writer.close()


@pytest.mark.parametrize(
    "request_bytes",
    [
        b"\xff\xff\xff\xff",
        b"\0\0\0\x02[]",
        b"\0\0\0\x03abc",
        encode_header({"vm": 7, "header": {}}),
        encode_header({"vm": "x", "header": "echo"}),
        encode_header({}),
    ],
    ids=["endless", "list", "garbage", "number", "text", "empty"],
)
async def test_a_request_that_is_none_is_refused(world: World, request_bytes: bytes) -> None:
    reader, writer = await transports.connect(world.path)
    writer.write(request_bytes)
    async with asyncio.timeout(PATIENCE):
        assert b"no request" in await reader.read()
    writer.close()


async def test_a_frame_that_is_too_long_is_refused(world: World, vm: VM) -> None:
    await world.add(vm, echo)
    async with opened(vm) as stream:
        await read_header(stream)
        stream._writer.write((MAX_FRAME + 1).to_bytes(LENGTH))
        with pytest.raises(Invalid, match="too long"):
            await stream.read()


async def test_a_request_that_no_agent_takes_is_refused_here(world: World, vm: VM) -> None:
    with pytest.raises(Invalid, match="too much"):
        await GatewayAgent(vm).open_stream({"op": "exec", "argv": ["x" * 100_000]})


async def test_garbage_from_clients_and_guests_hurts_nobody_else(
    world: World, vm: VM, other: VM
) -> None:
    """Random clients and a guest that answers at random, with a good pair beside them."""
    chance = random.Random(os.environ.get("FUZZ_SEED", "7"))

    async def babble(stream: Stream) -> None:
        for _ in range(chance.randrange(5)):
            await stream.write(chance.randbytes(chance.randrange(1, 3000)))
        chance.choice([stream.write_eof, stream.reset])()

    await world.add(vm, babble)
    await world.add(other, echo)

    async def client() -> None:
        reader, writer = await transports.connect(world.path)
        good = encode_header({"vm": vm.ref, "header": {"op": "x"}})
        writer.write(chance.choice([b"", good, good]) + chance.randbytes(chance.randrange(400)))
        if chance.random() < 0.5:
            writer.write_eof()
        with suppress(TimeoutError, OSError):
            await asyncio.wait_for(reader.read(2000), 0.2)
        writer.transport.abort()

    async def start() -> None:
        with pytest.raises(NexusError):
            (await GatewayAgent(vm).start(Program(["true"]), timeout=5)).close()
            raise Retryable("it answered by chance")

    for _ in range(10):
        await asyncio.gather(*(client() for _ in range(20)), *(start() for _ in range(5)))
        await echoes(other)
    await until(lambda: not world.gateway._streams)
    assert world.agents[vm.ref].hello.agent_version == "1.2.3"

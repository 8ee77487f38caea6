"""Programs that are started through the gateway, as web starts them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from guest_agent.chunks import Kind
from guest_agent.exec import Program
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Stream
from nexus_site.core.errors import Invalid, NexusError, Retryable
from tests.vms.fake_agents import PATIENCE, World, begin, end, say
from vms.agents import GatewayAgent
from vms.gateway import SOCKET
from vms.models import VM


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


async def deaf(stream: Stream) -> None:
    """Takes nothing and says nothing."""
    await asyncio.Event().wait()


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not condition():  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


async def test_a_program_runs_through_the_gateway(world: World, vm: VM) -> None:
    async def program(stream: Stream) -> None:
        header = await begin(stream)
        await say(stream, Kind.STDOUT, " ".join(header["argv"]).encode())
        await end(stream, code=3)

    await world.add(vm, program)
    execution = await GatewayAgent(vm).start(Program(["echo", "hello"]))
    assert execution.pid == 77
    assert await execution.read() == (1, b"echo hello")
    assert await execution.read() is None
    assert execution.exit
    assert execution.exit.code == 3
    execution.close()
    await until(lambda: not world.gateway._streams)


@pytest.mark.parametrize(
    ("reason", "kind", "code"),
    [("cannot-run", Invalid, "cannot-run"), ("busy", Retryable, "agent-busy")],
)
async def test_an_agent_that_refuses_says_why(
    world: World, vm: VM, reason: str, kind: type[NexusError], code: str
) -> None:
    async def refuse(stream: Stream) -> None:
        await read_header(stream)
        await stream.write(encode_header({"error": {"code": reason, "text": "no"}}))
        stream.write_eof()

    await world.add(vm, refuse)
    with pytest.raises(kind, match="no") as caught:
        await GatewayAgent(vm).start(Program(["x"]))
    assert caught.value.code == code


async def test_an_agent_that_does_not_answer_is_too_slow(world: World, vm: VM) -> None:
    await world.add(vm, deaf)
    with pytest.raises(Retryable, match="did not answer") as caught:
        await GatewayAgent(vm).start(Program(["x"]), timeout=0.2)
    assert caught.value.code == "agent-timeout"
    await until(lambda: not world.gateway._streams)

"""Freezing and thawing: the real agent in a sandbox, and guests that are no agent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from guest_agent.connection import AgentConnection, AgentRefused
from guest_agent.fields import paths_field
from guest_agent.messages import Configuration
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Broken, Retryable

from .conftest import PATIENCE, AgentProcess, Port, eventually
from .guests import header_bytes
from .test_connection import answer, close, greeted

Connect = Callable[[], Awaitable[AgentConnection]]

MOUNTINFO = """\
21 1 254:0 / / rw - ext4 /dev/vda rw
22 21 0:20 / /proc rw - proc proc rw
24 21 254:16 / /da\\040ta rw - ext4 /dev/vdb rw
25 21 254:32 / /media/cd ro - iso9660 /dev/vdc ro
"""
FROZEN = ["sync", "freeze /da ta", "freeze /"]
THAWED = ["thaw /", "thaw /da ta"]


@pytest.fixture
async def connection(agent: AgentProcess, connect: Connect) -> AgentConnection:
    agent.start()
    opened = await connect()
    agent.write("proc/self/mountinfo", MOUNTINFO)
    return opened


async def test_freezes_the_root_last_and_thaws_it_first(
    agent: AgentProcess, connection: AgentConnection
) -> None:
    assert await connection.freeze() == ["/da ta", "/"]
    assert agent.calls() == FROZEN
    assert await connection.thaw() == ["/", "/da ta"]
    assert agent.calls() == FROZEN + THAWED


async def test_there_is_nothing_to_thaw(agent: AgentProcess, connection: AgentConnection) -> None:
    assert await connection.thaw() == []
    assert agent.calls() == []


async def test_freezes_again_after_a_thaw(connection: AgentConnection) -> None:
    for _ in range(3):
        assert await connection.freeze(60)
        assert await connection.thaw()


async def test_a_second_freeze_is_refused_and_changes_nothing(
    agent: AgentProcess, connection: AgentConnection
) -> None:
    await connection.freeze()
    with pytest.raises(AgentRefused, match="frozen already") as caught:
        await connection.freeze()
    assert caught.value.reason == "busy"
    assert agent.calls() == FROZEN
    assert await connection.thaw() == ["/", "/da ta"]


@pytest.mark.parametrize("seconds", [-1, 61, "5", True])
async def test_a_time_that_cannot_be_is_refused(
    agent: AgentProcess, connection: AgentConnection, seconds: object
) -> None:
    stream = await connection.open_stream({"op": "freeze", "timeout": seconds})
    with pytest.raises(AgentRefused, match="timeout") as caught:
        await connection.read_reply(stream)
    stream.reset()
    assert caught.value.reason == "invalid"
    assert agent.calls() == []


async def test_thaws_by_itself_when_the_time_is_over(
    agent: AgentProcess, connection: AgentConnection
) -> None:
    stream = await connection.open_stream({"op": "freeze", "timeout": 0.01})
    await connection.read_reply(stream)
    stream.reset()
    await eventually(lambda: agent.calls() == FROZEN + THAWED)
    assert await connection.thaw() == [], "which tells the host so"


async def test_thaws_when_the_host_leaves(
    agent: AgentProcess, connection: AgentConnection, port: Port, connect: Connect
) -> None:
    await connection.freeze(60)
    assert port.agent
    port.agent[1].transport.abort()
    connection = await connect()
    assert agent.calls() == FROZEN + THAWED, "before it greets another host"
    assert await connection.freeze() == ["/da ta", "/"]


async def test_thaws_when_the_host_gives_up_before_the_answer(
    connection: AgentConnection,
) -> None:
    """Wherever in it the agent is when it hears of that, and of the thaw."""
    for _ in range(20):
        stream = await connection.open_stream({"op": "freeze"})
        stream.reset()
        await connection.thaw(PATIENCE)
        async with asyncio.timeout(PATIENCE):
            while not await freezes(connection):
                pass
        assert await connection.thaw(PATIENCE)


async def freezes(connection: AgentConnection) -> bool:
    """Whether it does so now; False where it is frozen."""
    try:
        return bool(await connection.freeze())
    except AgentRefused as error:
        if error.reason != "busy":
            raise
        return False


async def test_does_not_write_while_frozen(
    agent: AgentProcess, connection: AgentConnection
) -> None:
    await connection.freeze()
    with pytest.raises(AgentRefused, match="frozen") as caught:
        await connection.configure(Configuration(hostname="otter"), PATIENCE)
    assert caught.value.reason == "busy"
    assert not (agent.sandbox / "etc/hostname").exists()
    await connection.heartbeat(PATIENCE)
    await connection.thaw()
    await connection.configure(Configuration(hostname="otter"), PATIENCE)
    assert agent.read("etc/hostname") == "otter\n"


async def test_thaws_before_it_shuts_down(agent: AgentProcess, connection: AgentConnection) -> None:
    await connection.freeze()
    await connection.shutdown("poweroff", PATIENCE)
    await eventually(lambda: agent.calls() == [*FROZEN, *THAWED, "shutdown poweroff"])


async def test_an_agent_that_takes_over_thaws_what_is_frozen(
    agent: AgentProcess, connect: Connect
) -> None:
    agent.write("proc/self/mountinfo", MOUNTINFO)
    first = agent.start(init="/sbin/init")
    connection = await connect()
    agent.start("service")
    await connection.wait_settled()
    await connection.freeze(60)
    calls = agent.calls()
    first.kill()
    first.wait()
    await connect()
    assert agent.calls() == calls + THAWED


async def test_nothing_to_freeze_is_a_refusal(agent: AgentProcess, connect: Connect) -> None:
    """Who hears “frozen” takes the disks for consistent."""
    agent.start()
    connection = await connect()
    agent.write("proc/self/mountinfo", "21 1 0:2 / / rw - rootfs rootfs rw\n")
    with pytest.raises(AgentRefused, match="no file system"):
        await connection.freeze()
    agent.write("proc/self/mountinfo", MOUNTINFO)
    assert await connection.freeze()


# A guest in the test's hands.


async def test_the_host_asks_for_its_time() -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.freeze(42))
    request = await answer(guest, header_bytes({"ok": True, "frozen": ["/"]}))
    assert request == {"op": "freeze", "timeout": 42}
    assert await call == ["/"]
    await close(connection, guest)


async def test_an_older_agent_refuses() -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.freeze())
    problem = {"code": "unknown-op", "text": "this agent does not know the operation freeze"}
    await answer(guest, header_bytes({"ok": False, "error": problem}))
    with pytest.raises(AgentRefused) as caught:
        await call
    assert caught.value.reason == "unknown-op"
    await close(connection, guest)


async def test_a_guest_that_never_answers() -> None:
    connection, guest = await greeted()
    with pytest.raises(Retryable, match="“freeze”"):
        await connection.freeze(0.05)
    await close(connection, guest)


@pytest.mark.parametrize("value", [None, "/", {}, [1], ["/"] * 1025])
async def test_a_false_answer_ends_the_connection(value: Any) -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.thaw(PATIENCE))
    await answer(guest, header_bytes({"ok": True, "thawed": value}))
    with pytest.raises(Broken, match="broke the protocol"):
        await call
    async with asyncio.timeout(PATIENCE):
        assert "broke the protocol" in await connection.wait_closed()
    await close(connection, guest)


def test_mount_points_are_fit_to_be_shown() -> None:
    assert paths_field({"frozen": ["/a\x1b[2J", "/" + "x" * 9999]}, "frozen") == [
        "/a[2J",
        "/" + "x" * 511,
    ]
    with pytest.raises(ProtocolError):
        paths_field({}, "frozen")

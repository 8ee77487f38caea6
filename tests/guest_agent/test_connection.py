"""A connection to a guest that is not the agent it should be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration
from guest_agent.yamux import Flag, Type
from nexus_site.core.errors import Broken, Invalid, NexusError, Retryable

from .conftest import PATIENCE
from .guests import HELLO, Guest, announcement, frame, header_bytes, pair

Script = Callable[[Guest], Coroutine[None, None, None]]


async def connect(
    *first: bytes, hello_timeout: float | None = PATIENCE
) -> tuple[AgentConnection, Guest]:
    """A connection to a guest that says ``first`` after the handshake."""
    ends, guest = await pair()
    opening = asyncio.create_task(AgentConnection.open(*ends, hello_timeout=hello_timeout))
    await guest.shake_hands()
    await guest.send(*first)
    try:
        return await opening, guest
    except BaseException:
        guest.writer.transport.abort()
        raise


async def greeted() -> tuple[AgentConnection, Guest]:
    connection, guest = await connect(announcement(2, HELLO))
    assert await guest.receive() == (Type.WINDOW_UPDATE, Flag.ACK | Flag.FIN, 2, 0, b"")
    return connection, guest


async def close(connection: AgentConnection, guest: Guest) -> None:
    await connection.close()
    guest.writer.transport.abort()


async def answer(guest: Guest, *pieces: bytes, end: Flag = Flag.FIN) -> dict[str, Any]:
    """Takes one request and answers it with raw bytes."""
    _, flags, number, _, data = await guest.receive()
    assert flags == Flag.SYN
    assert (await guest.receive())[1] == Flag.FIN
    content = b"".join(pieces)
    await guest.send(frame(Type.DATA, Flag.ACK | end, number, len(content), content))
    import json

    return dict(json.loads(data[4:]))


async def test_hello_then_calls() -> None:
    connection, guest = await greeted()
    assert connection.hello.os == "Otter Linux"
    call = asyncio.create_task(connection.configure(Configuration(hostname="otter"), PATIENCE))
    request = await answer(guest, header_bytes({"ok": True}))
    assert request["op"] == "configure"
    assert request["hostname"] == "otter"
    await call
    assert not connection._session._streams
    await close(connection, guest)


async def test_settled_comes_later() -> None:
    connection, guest = await greeted()
    assert connection.settled_at is None
    await guest.send(announcement(4, {"op": "settled", "seconds": 30.5}))
    async with asyncio.timeout(PATIENCE):
        assert await connection.wait_settled() == 30.5
    await close(connection, guest)


async def test_announcements_of_newer_agents_are_let_be() -> None:
    connection, guest = await greeted()
    await guest.send(announcement(4, {"op": "weather", "mood": [1]}))
    await guest.send(announcement(6, {"op": "settled", "seconds": 1}))
    async with asyncio.timeout(PATIENCE):
        assert await connection.wait_settled() == 1
    await close(connection, guest)


@pytest.mark.parametrize(
    "first",
    [
        announcement(2, HELLO | {"boot_id": "x"}),
        announcement(2, {"op": "settled", "seconds": 1}),
        announcement(2, b"{"),
        announcement(2, b"[" * 50_000),
        frame(Type.DATA, Flag.SYN, 2, 4, b"\xff\xff\xff\xff"),
        b"SSH-2.0-OpenSSH\r\n",
    ],
)
async def test_a_false_hello_ends_the_connection(first: bytes) -> None:
    with pytest.raises(Retryable, match="broke the protocol"):
        await connect(first)


async def test_a_second_hello_ends_the_connection() -> None:
    connection, guest = await greeted()
    await guest.send(announcement(4, HELLO))
    async with asyncio.timeout(PATIENCE):
        assert "hello twice" in await connection.wait_closed()
    with pytest.raises(Retryable, match="hello twice"):
        await connection.wait_settled()
    await close(connection, guest)


async def test_a_guest_that_never_says_hello() -> None:
    with pytest.raises(Retryable, match=r"hello within 0\.2 s") as caught:
        await connect(hello_timeout=0.2)
    assert caught.value.code == "agent-timeout"


async def test_a_guest_that_never_answers_the_offer() -> None:
    ends, guest = await pair()
    with pytest.raises(Retryable, match=r"hello within 0\.2 s"):
        await AgentConnection.open(*ends, hello_timeout=0.2)
    assert ends[1].transport.is_closing()
    guest.writer.transport.abort()


async def test_a_vmm_that_closes() -> None:
    ends, guest = await pair()
    opening = asyncio.create_task(AgentConnection.open(*ends, hello_timeout=None))
    guest.writer.close()
    with pytest.raises(Retryable) as caught:
        await opening
    assert caught.value.code == "agent-gone"


async def test_an_agent_of_another_version() -> None:
    ends, guest = await pair()
    opening = asyncio.create_task(AgentConnection.open(*ends, hello_timeout=PATIENCE))
    await guest.shake_hands(version=9)
    with pytest.raises(Broken, match="version 9"):
        await opening
    guest.writer.transport.abort()


async def test_a_hello_without_a_stop_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guest_agent.connection.HEADER_TIMEOUT", 0.05)
    connection, guest = await greeted()
    await guest.send(frame(Type.DATA, Flag.SYN, 4, 2, b"\0\0"))
    assert await guest.receive() == (Type.WINDOW_UPDATE, Flag.ACK | Flag.RST, 4, 0, b"")
    await close(connection, guest)


async def test_a_refusal_is_told_without_its_tricks() -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.heartbeat(PATIENCE))
    nasty = {"ok": False, "error": {"code": "x", "text": "\x1b[2Jno" + "!" * 5000}}
    await answer(guest, header_bytes(nasty))
    with pytest.raises(Broken) as caught:
        await call
    assert caught.value.code == "agent-refused"
    assert "\x1b" not in caught.value.text
    assert len(caught.value.text) < 1100
    await close(connection, guest)


@pytest.mark.parametrize("reply", [{}, {"ok": False}, {"ok": 1}, {"error": "no"}])
async def test_an_answer_that_says_nothing_is_a_refusal(reply: dict[str, Any]) -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.shutdown("poweroff", PATIENCE))
    await answer(guest, header_bytes(reply))
    with pytest.raises(Broken, match="no reason"):
        await call
    await close(connection, guest)


@pytest.mark.parametrize(
    "reply", [b"\xff\xff\xff\xff", header_bytes(b"nope"), header_bytes({"ok": True, "uptime": "x"})]
)
async def test_a_false_answer_ends_the_connection(reply: bytes) -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.heartbeat(PATIENCE))
    await answer(guest, reply)
    with pytest.raises(Broken, match="broke the protocol"):
        await call
    async with asyncio.timeout(PATIENCE):
        assert "broke the protocol" in await connection.wait_closed()
    await close(connection, guest)


async def test_an_answer_that_stops_too_early_fails_only_the_call() -> None:
    connection, guest = await greeted()
    call = asyncio.create_task(connection.heartbeat(PATIENCE))
    await answer(guest, b"\0\0")
    with pytest.raises(Retryable, match="too early"):
        await call
    call = asyncio.create_task(connection.heartbeat(PATIENCE))
    await answer(guest, b"\0\0", end=Flag.RST)
    with pytest.raises(Retryable, match="closed the stream"):
        await call
    assert not connection._session._closed.done()
    await close(connection, guest)


async def test_a_request_that_is_too_long_is_not_sent() -> None:
    connection, guest = await greeted()
    with pytest.raises(Invalid, match="too much"):
        await connection.configure(Configuration(env={"A": "x" * 70_000}))
    assert not connection._session._streams
    await close(connection, guest)


async def test_many_dead_calls_do_not_fill_the_host() -> None:
    """A guest that is paused takes nothing in; the calls give up and leave nothing behind."""
    connection, guest = await greeted()
    guest.reader._transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(30):
        with pytest.raises(Retryable, match="did not answer"):
            await connection.configure(Configuration(env={"A": "x" * 60_000}), timeout=0.01)
    assert not connection._session._streams
    buffered = connection._session._writer.transport.get_write_buffer_size()
    assert buffered < 200_000
    guest.reader._transport.resume_reading()  # type: ignore[attr-defined]
    await close(connection, guest)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=60), max_size=8))
def test_a_guest_says_hello_properly_or_is_an_error_for_people(pieces: list[bytes]) -> None:
    async def run() -> None:
        ends, guest = await pair()
        opening = asyncio.create_task(AgentConnection.open(*ends, hello_timeout=PATIENCE))
        await guest.shake_hands()
        await guest.send(*pieces)
        guest.writer.close()
        with pytest.raises(NexusError):
            await opening

    asyncio.run(run())

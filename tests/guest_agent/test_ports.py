"""Ports through the real agent: programs that listen on this machine in place of a guest's."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from guest_agent.calls import AgentCalls
from guest_agent.connection import AgentConnection
from guest_agent.ports import Connection, connect
from guest_agent.refusals import AgentRefused
from guest_agent.upgrade import upgrade
from nexus_site.core.errors import Conflict, Invalid, NexusError, Retryable

from .conftest import PATIENCE, AgentProcess, Ends

MEGABYTE = 1 << 20
PIECE = 1 << 16


NewHost = Callable[[], Awaitable[AgentConnection]]


@pytest.fixture
async def connection(agent: AgentProcess, connect: NewHost) -> AgentConnection:
    agent.start()
    return await connect()


class Listener:
    """A program that listens; each connection to it is the test's."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[Ends] = asyncio.Queue()
        self.port = 0
        self.server: asyncio.Server | None = None

    async def take(self) -> Ends:
        async with asyncio.timeout(PATIENCE):
            return await self.accepted.get()


@asynccontextmanager
async def listening(address: str = "127.0.0.1") -> AsyncIterator[Listener]:
    listener = Listener()
    taken: list[Ends] = []

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.append((reader, writer))
        listener.accepted.put_nowait((reader, writer))

    listener.server = await asyncio.start_server(accept, address, 0)
    listener.port = listener.server.sockets[0].getsockname()[1]
    try:
        yield listener
    finally:
        listener.server.close()
        for _, writer in taken:
            writer.transport.abort()
        await asyncio.sleep(0)  # what is aborted is closed by then


@asynccontextmanager
async def met(agent: AgentConnection) -> AsyncIterator[tuple[Connection, Ends]]:
    """The two ends of a connection: the host's and the program's."""
    async with listening() as listener, asyncio.timeout(PATIENCE):
        host = await connect(agent, listener.port)
        try:
            yield host, await listener.take()
        finally:
            host.close()


async def to_the_end(host: Connection) -> bytes:
    said = b""
    while data := await host.read(PIECE):
        said += data
    return said


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def test_bytes_go_both_ways_and_each_ends_by_itself(connection: AgentConnection) -> None:
    async with met(connection) as (host, (reader, writer)):
        await host.write(b"to the program")
        await host.write_eof()
        assert await reader.read() == b"to the program"
        writer.write(b"and back")
        writer.write_eof()
        assert await to_the_end(host) == b"and back"


async def test_the_program_may_end_first(connection: AgentConnection) -> None:
    async with met(connection) as (host, (reader, writer)):
        writer.write(b"that is all")
        writer.write_eof()
        assert await to_the_end(host) == b"that is all"
        await host.write(b"x" * MEGABYTE)
        await host.write_eof()
        assert len(await reader.read()) == MEGABYTE


async def test_all_of_much_arrives_both_ways_at_once(connection: AgentConnection) -> None:
    sent = random.Random(1).randbytes(5 * MEGABYTE + 3)
    async with met(connection) as (host, (reader, writer)):

        async def give() -> None:
            await host.write(sent)
            await host.write_eof()

        async def echo() -> None:
            while data := await reader.read(PIECE):
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        giving, echoing = asyncio.create_task(give()), asyncio.create_task(echo())
        assert await to_the_end(host) == sent
        await asyncio.gather(giving, echoing)


async def test_a_program_that_reads_nothing_stops_its_sender_alone(
    connection: AgentConnection,
) -> None:
    async with met(connection) as (host, (reader, _)):
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writing = asyncio.create_task(host.write(bytes(64 * MEGABYTE)))
        await asyncio.sleep(0.3)
        assert not writing.done(), "the windows are full"
        async with met(connection) as (other, (_, writer)):
            writer.write(b"quick")
            assert await other.read(PIECE) == b"quick"
        assert await connection.ping(PATIENCE) >= 0
        writing.cancel()


async def test_a_program_that_listens_on_ipv6_alone(connection: AgentConnection) -> None:
    async with listening("::1") as listener:
        host = await connect(connection, listener.port)
        (_, writer) = await listener.take()
        writer.write(b"six")
        assert await host.read(PIECE) == b"six"
        host.close()


async def test_a_port_where_nobody_listens(connection: AgentConnection) -> None:
    port = free_port()
    with pytest.raises(Conflict, match=f"takes connections on port {port}") as caught:
        await connect(connection, port)
    assert caught.value.code == "port-refused"


@pytest.mark.parametrize("number", [0, -1, 65536, 10**30])
async def test_what_is_no_port_is_not_asked_for(connection: AgentConnection, number: int) -> None:
    with pytest.raises(Invalid) as caught:
        await connect(connection, number)
    assert caught.value.code == "bad-port"


@pytest.mark.parametrize("number", [0, 65536, 80.5, -1, 1e300, "80", None, [], True])
async def test_the_agent_takes_nothing_for_a_port_that_is_none(
    connection: AgentConnection, number: object
) -> None:
    with pytest.raises(AgentRefused) as caught:
        await connection.ask({"op": "connect", "port": number}, PATIENCE)
    assert caught.value.reason == "bad-port"


async def test_a_program_that_breaks_off_is_told_from_one_that_ends(
    connection: AgentConnection,
) -> None:
    async with met(connection) as (host, (_, writer)):
        writer.write(b"half of i")
        await writer.drain()
        assert await host.read(PIECE) == b"half of i"
        end = writer.get_extra_info("socket")
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        with pytest.raises(Retryable, match="broke the connection off") as caught:
            await to_the_end(host)
        assert caught.value.code == "port-reset"


async def test_a_program_that_takes_no_more_after_its_end(connection: AgentConnection) -> None:
    async with met(connection) as (host, (_, writer)):
        writer.write(b"413 Too much")
        writer.close()
        await writer.wait_closed()
        assert await to_the_end(host) == b"413 Too much", "what it said comes first"
        with pytest.raises(Retryable) as caught:
            await host.write(bytes(64 * MEGABYTE))
        assert caught.value.code == "port-reset"


async def test_a_host_that_leaves_resets_the_program_s_end(connection: AgentConnection) -> None:
    async with met(connection) as (host, (reader, _)):
        await host.write(b"half of i")
        assert await reader.read(100) == b"half of i"
        host.close()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_a_host_that_is_lost_resets_the_program_s_end(
    agent: AgentProcess, connect: NewHost
) -> None:
    agent.start()
    first = await connect()
    async with met(first) as (host, (reader, _)):
        await first.close()
        with pytest.raises(Retryable) as caught:
            await host.read(PIECE)
        assert caught.value.code == "agent-gone"
        await connect()
        with pytest.raises(ConnectionResetError):
            await reader.read()


async def test_connections_are_bounded_and_their_places_free_again(
    connection: AgentConnection,
) -> None:
    async with listening() as listener:
        open_ = [await connect(connection, listener.port) for _ in range(64)]
        with pytest.raises(Retryable, match="connections") as caught:
            await connect(connection, listener.port)
        assert caught.value.code == "agent-busy"
        for each in open_:
            each.close()

        async def again() -> None:
            async with asyncio.timeout(PATIENCE):
                while True:
                    try:
                        (await connect(connection, listener.port)).close()
                        return
                    except Retryable:
                        await asyncio.sleep(0.01)

        await again()


async def test_an_agent_is_not_replaced_while_a_connection_is_open(
    connection: AgentConnection, agent: AgentProcess
) -> None:
    async with met(connection):
        with pytest.raises(Retryable, match="connections") as caught:
            await upgrade(connection, agent.binary)
        assert caught.value.code == "agent-busy"


async def test_an_agent_that_knows_no_ports_is_outdated() -> None:
    class Old(AgentCalls[Connection]):  # type: ignore[type-var]
        async def open_stream(self, header: object) -> Connection:
            raise AgentRefused("this agent does not know the operation connect", "unknown-op")

        def _end_for(self, error: Exception) -> NexusError:  # type: ignore[override]
            raise AssertionError(error)

    with pytest.raises(Conflict, match="too old") as caught:
        await connect(Old(), 80)
    assert caught.value.code == "agent-outdated"
    assert "nexusctl vm agent-upgrade" in caught.value.hint

"""Both ends of the protocol against each other: the real agent, without a VM."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from guest_agent.binary import agent_version
from guest_agent.connection import AgentConnection
from guest_agent.headers import encode_header
from guest_agent.messages import Configuration, Network
from guest_agent.yamux import WINDOW, Stream
from nexus_site.core.errors import Broken, NexusError, Retryable

from .conftest import PATIENCE, AgentProcess, Port, eventually

Connect = Callable[[], Awaitable[AgentConnection]]

MEGABYTE = 1 << 20


async def echo(connection: AgentConnection) -> Stream:
    stream = await connection.open_stream({"op": "echo"})
    await connection.read_reply(stream)
    return stream


def stands_still(pid: int) -> bool:
    """Whether all threads of the process have taken the signal to stop."""
    states = [
        file.read_text().rpartition(")")[2] for file in Path("/proc").glob(f"{pid}/task/*/stat")
    ]
    return all(state.startswith(" T") for state in states)


async def read_all(stream: Stream) -> bytes:
    data = bytearray()
    while piece := await stream.read():
        data += piece
    return bytes(data)


async def test_says_who_it_is(agent: AgentProcess, connect: Connect) -> None:
    agent.write("etc/os-release", 'ID=otter\nPRETTY_NAME="Otter Linux 3"\n')
    agent.write("etc/nexus/image.yaml", "image_id: aaaaaaaaaaaac\nimage_name: otter\n# no\n")
    agent.start()
    hello = (await connect()).hello
    assert (hello.protocol, hello.agent_version) == (1, agent_version())
    assert (hello.arch, hello.kernel) == (os.uname().machine, os.uname().release)
    assert (hello.os, hello.init) == ("Otter Linux 3", "none")
    assert hello.identity == "none", "there is no kernel that names one"
    assert (hello.image.image_id, hello.image.image_name) == ("aaaaaaaaaaaac", "otter")
    assert hello.image.build_id == ""
    assert hello.boot_id == agent.read("/proc/sys/kernel/random/boot_id").strip()
    assert hello.boot.agent_started
    assert hello.boot.root_mounted is None
    assert hello.boot.settled is not None, "without an init there is nothing to wait for"


async def test_tells_how_the_guest_is(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    heartbeat = await (await connect()).heartbeat(PATIENCE)
    disk = os.statvfs(agent.sandbox)
    assert heartbeat.memory_total == os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < heartbeat.memory_available < heartbeat.memory_total
    assert [disk.path for disk in heartbeat.disks] == ["/"]
    assert heartbeat.disks[0].total == disk.f_blocks * disk.f_frsize
    assert heartbeat.uptime > 0
    assert heartbeat.time > 1.7e9
    assert len(heartbeat.load) == 3


async def test_configures_the_guest(agent: AgentProcess, connect: Connect) -> None:
    agent.write("etc/hosts", "127.0.0.1\tlocalhost\n127.0.1.1 old\n10.0.0.1 other\n")
    (agent.sandbox / "etc/resolv.conf").symlink_to("/run/elsewhere")
    agent.start()
    connection = await connect()
    await connection.configure(
        Configuration(
            hostname="brave-otter",
            time=1_800_000_000.25,
            network=Network(),
            env={"B": "it's\ntwo lines", "A_1": "$HOME"},
        ),
        PATIENCE,
    )
    assert agent.calls() == [
        "time 1800000000250000000",
        "entropy 64",
        "hostname brave-otter",
        "interface eth0 10.0.2.15/24 via 10.0.2.2",
    ]
    assert agent.read("etc/hostname") == "brave-otter\n"
    assert agent.read("etc/hosts").splitlines() == [
        "127.0.0.1\tlocalhost",
        "127.0.1.1\tbrave-otter",
        "10.0.0.1 other",
    ]
    assert agent.read("etc/resolv.conf") == "nameserver 10.0.2.3\n"
    assert not (agent.sandbox / "etc/resolv.conf").is_symlink()
    assert agent.read("etc/nexus/env") == "A_1='$HOME'\nB='it'\\''s\ntwo lines'\n"
    assert (agent.sandbox / "etc/nexus/env").stat().st_mode & 0o777 == 0o600


async def test_makes_etc_hosts_where_there_is_none(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    await (await connect()).configure(Configuration(hostname="otter"), PATIENCE)
    assert agent.read("etc/hosts").splitlines() == [
        "127.0.0.1\tlocalhost",
        "::1\tlocalhost",
        "127.0.1.1\totter",
    ]


@pytest.mark.parametrize(
    ("request_fields", "blamed"),
    [
        ({"hostname": "-otter"}, "hostname"),
        ({"hostname": 7}, "hostname"),
        ({"time": -1}, "time"),
        ({"entropy": "not base64!"}, "entropy"),
        ({"entropy": ""}, "entropy"),
        ({"network": {"address": "10.0.2.15"}}, "network"),
        ({"network": {"address": "10.0.2.256/24"}}, "network"),
        ({"network": {"dns": ["10.0.2.03"]}}, "network"),
        ({"network": {"address": "10.0.2.15/24", "mac": "ff:ff:ff:ff:ff:ff"}}, "network"),
        ({"identity": "a/b"}, "identity"),
        ({"boot_id": "a"}, "boot_id"),
        ({"env": {"1A": "x"}}, "env"),
        ({"env": {"A": "\0"}}, "env"),
    ],
)
async def test_refuses_what_it_cannot_set_and_sets_the_rest(
    agent: AgentProcess, connect: Connect, request_fields: dict[str, object], blamed: str
) -> None:
    agent.start()
    connection = await connect()
    other = {"env": {"SET": "1"}} if blamed != "env" else {"time": 5}
    stream = await connection.open_stream({"op": "configure", **request_fields, **other})
    with pytest.raises(Broken, match=f"refuses: {blamed}: "):
        await connection.read_reply(stream)
    stream.reset()
    assert agent.read("etc/nexus/env" if blamed != "env" else "calls")
    await connection.heartbeat(PATIENCE)


@pytest.mark.parametrize("mode", ["poweroff", "reboot"])
async def test_shuts_down(agent: AgentProcess, connect: Connect, mode: str) -> None:
    agent.start()
    await (await connect()).shutdown(mode, PATIENCE)  # type: ignore[arg-type]
    await eventually(lambda: agent.calls() == [f"shutdown {mode}"])


async def test_does_not_shut_down_for_a_word_it_does_not_know(
    agent: AgentProcess, connect: Connect
) -> None:
    agent.start()
    connection = await connect()
    stream = await connection.open_stream({"op": "shutdown", "mode": "sleep"})
    with pytest.raises(Broken, match="poweroff or reboot"):
        await connection.read_reply(stream)
    stream.reset()
    await connection.heartbeat(PATIENCE)
    assert agent.calls() == []


async def test_refuses_an_unknown_operation(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    connection = await connect()
    stream = await connection.open_stream({"op": "levitate"})
    with pytest.raises(Broken, match="levitate"):
        await connection.read_reply(stream)
    assert await stream.read() == b""
    stream.reset()


@pytest.mark.parametrize(
    "opening", [b"\0\0\0\x02{]", b"\0\1\0\1", b"\0\0\0\x02[]", encode_header({"op": 3})]
)
async def test_refuses_a_bad_header(agent: AgentProcess, connect: Connect, opening: bytes) -> None:
    agent.start()
    connection = await connect()
    stream = connection._session.open_stream()
    await stream.write(opening)
    with pytest.raises(Broken, match="refuses"):
        await connection.read_reply(stream)
    stream.reset()
    await connection.heartbeat(PATIENCE)


async def test_carries_much_data_both_ways(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    stream = await echo(await connect())
    data = random.Random(1).randbytes(8 * MEGABYTE)
    reading = asyncio.create_task(read_all(stream))
    await stream.write(data)
    stream.write_eof()
    assert await reading == data


async def test_a_reader_that_waits_stops_the_writer(agent: AgentProcess, connect: Connect) -> None:
    """Nobody holds more than a window for a stream, and other streams go on."""
    agent.start()
    connection = await connect()
    stream = await echo(connection)
    writing = asyncio.create_task(stream.write(bytes(8 * MEGABYTE)))
    for _ in range(20):
        await connection.heartbeat(PATIENCE)
    assert not writing.done()
    assert len(stream._received) <= WINDOW
    taken = 0
    while taken < 8 * MEGABYTE:
        taken += len(await stream.read(10_000))
        assert len(stream._received) <= WINDOW
    await writing
    stream.reset()


async def test_many_streams_at_once(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    connection = await connect()

    async def exchange(number: int) -> bool:
        stream = await echo(connection)
        data = random.Random(number).randbytes(100_000 + number)
        reading = asyncio.create_task(read_all(stream))
        await stream.write(data)
        stream.write_eof()
        return await reading == data

    assert all(await asyncio.gather(*map(exchange, range(50))))
    assert not connection._session._streams, "all streams are over on both sides"


async def test_a_reset_ends_one_stream_only(agent: AgentProcess, connect: Connect) -> None:
    agent.start()
    connection = await connect()
    stream, other = await echo(connection), await echo(connection)
    writing = asyncio.create_task(stream.write(bytes(MEGABYTE)))
    await stream.read(1)
    stream.reset()
    with pytest.raises(Retryable, match="closed"):
        await writing
    with pytest.raises(Retryable, match="closed"):
        while await stream.read():
            pass
    await other.write(b"still here")
    assert await other.read_exactly(10) == b"still here"
    other.reset()


async def test_a_silent_agent_fails_pings_and_calls(agent: AgentProcess, connect: Connect) -> None:
    process = agent.start()
    connection = await connect()
    assert await connection.ping(PATIENCE) > 0
    process.send_signal(signal.SIGSTOP)
    await eventually(lambda: stands_still(process.pid))
    with pytest.raises(Retryable, match=r"ping within 0\.2 s"):
        await connection.ping(0.2)
    with pytest.raises(Retryable, match=r"“heartbeat” within 0\.2 s"):
        await connection.heartbeat(0.2)
    process.send_signal(signal.SIGCONT)
    assert await connection.ping(PATIENCE) > 0
    await connection.heartbeat(PATIENCE)
    assert not connection._session._streams


async def test_comes_back_to_a_host_that_closed(
    agent: AgentProcess, port: Port, connect: Connect
) -> None:
    agent.start()
    for dial in range(1, 4):
        connection = await connect()
        await connection.heartbeat(PATIENCE)
        await connection.close()
        assert port.agent
        port.agent[1].transport.abort()
        await eventually(lambda dial=dial: port.dials > dial)
        assert await connection.wait_closed() == "Nexus closed it"
        with pytest.raises(Retryable, match="Nexus closed it"):
            await connection.heartbeat()


async def test_a_host_that_takes_over_in_mid_stream_finds_the_beginning(
    agent: AgentProcess, connect: Connect
) -> None:
    """The agent sees no end of file, and both directions are full of the old host's bytes."""
    agent.start()
    for round_number in range(3):
        connection = await connect()
        stream = await echo(connection)
        writing = asyncio.create_task(stream.write(bytes(8 * MEGABYTE)))
        for _ in range(round_number + 1):
            await stream.read(50_000)
        newer = await connect()  # the port drops the old host's transport
        assert newer.hello.boot_id == connection.hello.boot_id
        await newer.heartbeat(PATIENCE)
        with pytest.raises(Retryable, match="connection"):
            await writing
        await connection.wait_closed()


async def test_a_host_that_takes_over_between_two_frames_needs_no_other_connection(
    agent: AgentProcess, port: Port, connect: Connect
) -> None:
    """So it is in a guest that goes on from memory."""
    agent.start()
    for _ in range(3):
        connection = await connect()
        await connection.heartbeat(PATIENCE)
    assert port.dials == 1


async def test_a_host_that_breaks_the_protocol_is_dropped(
    agent: AgentProcess, port: Port, connect: Connect
) -> None:
    agent.start()
    connection = await connect()
    connection._session._writer.write(b"\xff" * 12)
    await eventually(lambda: port.dials == 2)
    await (await connect()).heartbeat(PATIENCE)


async def test_the_service_waits_then_takes_over(agent: AgentProcess, connect: Connect) -> None:
    first = agent.start(init="/sbin/init")
    connection = await connect()
    assert connection.hello.boot.settled is None
    assert connection.settled_at is None
    agent.start("service")
    async with asyncio.timeout(PATIENCE):
        assert await connection.wait_settled() >= (connection.hello.boot.agent_started or 0)
    now = (await connection.heartbeat(PATIENCE)).uptime
    first.kill()
    first.wait()
    second = await connect()
    assert second.hello.boot.settled is not None
    assert second.hello.boot.settled <= now, (
        "it remembers when it was started, not when it took over"
    )
    await second.heartbeat(PATIENCE)


async def test_no_call_gets_through_after_the_end(agent: AgentProcess, connect: Connect) -> None:
    process = agent.start()
    connection = await connect()
    waiting = asyncio.create_task(connection.wait_settled())
    stream = await echo(connection)
    reading = asyncio.create_task(stream.read())
    process.kill()
    process.wait()
    assert await waiting
    connection._session.fail("a test")
    for call in (reading, connection.heartbeat(), connection.ping(), connection.shutdown()):
        with pytest.raises(NexusError, match="a test"):
            await call

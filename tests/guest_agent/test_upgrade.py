"""The real agent replaced by another binary while its sessions run."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from guest_agent import build
from guest_agent.build import SOURCE
from guest_agent.chunks import ExitStatus
from guest_agent.connection import AgentConnection
from guest_agent.exec import Program, Terminal
from guest_agent.files import Files
from guest_agent.messages import Hello
from guest_agent.sessions import MIN_KEEP, Sessions
from guest_agent.upgrade import is_outdated, upgrade
from guest_agent.yamux import Flag, Type
from nexus_site.core.errors import Conflict, Invalid, Retryable

from .conftest import PATIENCE, AgentProcess, Port, eventually
from .guests import HELLO, announcement, frame, header_bytes, pair
from .test_exec import alive
from .test_sessions import read_until, script, to_the_end, wait_end

Connect = Callable[[], Awaitable[AgentConnection]]


@pytest.fixture(scope="session")
def newer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The agent of a later version."""
    directory = tmp_path_factory.mktemp("newer")
    source = shutil.copytree(SOURCE, directory / "agent")
    (source / "VERSION").write_text("9.9.9\n")
    return build.build(source=source, directory=directory)


def dialled(port: Port, times: int) -> Callable[[], bool]:
    return lambda: port.dials >= times


def open_files(pid: int) -> list[str]:
    names = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # it has been closed since
            names.append(link.readlink().name)
    return names


def content(path: Path) -> bytes:
    return path.read_bytes()


def installed(agent: AgentProcess) -> bytes:
    return (agent.sandbox / "usr/bin/nexus-agent").read_bytes()


async def test_sessions_live_on(
    agent: AgentProcess, connect: Connect, port: Port, newer: Path, tmp_path: Path
) -> None:
    process = agent.start()
    old = await connect()
    sessions = Sessions(old)
    pids = {
        "shell": await sessions.start("shell", Program(["sh"], tty=Terminal(20, 30))),
        "cat": await sessions.start("cat", script("echo err >&2; cat", stdin=True)),
        "busy": await sessions.start("busy", script("while :; do echo x; done"), keep=MIN_KEEP),
        "ends": await sessions.start("ends", script("read x; exit 5", stdin=True)),
        "late": await sessions.start("late", script("sleep 600", timeout=1.5)),
    }
    await sessions.start("ended", script("echo done; exit 3"))
    await wait_end(sessions, "ended")
    shell = await sessions.attach("shell")
    await shell.write(b"X=kept; echo rea''dy\n")
    await read_until(shell, b"ready")
    cat = await sessions.attach("cat")
    await cat.write(b"before\n")
    await read_until(cat, b"before\n")

    await upgrade(old, newer, PATIENCE)
    await old.close()
    await eventually(lambda: port.dials == 2)
    fresh = await connect()
    assert fresh.hello.agent_version == "9.9.9"
    assert fresh.hello.boot == old.hello.boot
    assert process.poll() is None
    assert installed(agent) == content(newer)

    sessions = Sessions(fresh)
    states = {state.id: state for state in await sessions.list()}
    assert {name: states[name].pid for name in pids} == {n: s.pid for n, s in pids.items()}
    assert states["ended"].exit == ExitStatus(code=3)
    (output,) = await to_the_end(await sessions.attach("ended"))
    assert output.data == b"done\n"
    shell = await sessions.attach("shell", shell.offset)
    assert shell.tty
    await shell.write(b"echo $X; stty size; exit 6\n")
    await read_until(shell, b"kept\r\n20 30\r\n")
    await to_the_end(shell)
    assert shell.exit == ExitStatus(code=6)
    cat = await sessions.attach("cat")
    outputs = await read_until(cat, b"before\n")
    assert sorted(outputs) == sorted(b"err\nbefore\n")
    await cat.write(b"after\n")
    await cat.write_eof()
    assert (await to_the_end(cat))[-1].data == b"after\n"
    ends = await sessions.attach("ends")
    await ends.write(b"\n")
    await to_the_end(ends)
    assert ends.exit == ExitStatus(code=5), "children stay children"
    late = await sessions.attach("late")
    await to_the_end(late)
    assert late.exit == ExitStatus(signal=signal.SIGKILL, timed_out=True)
    size = states["busy"].size
    await eventually(lambda: alive(pids["busy"].pid))
    assert (await sessions.attach("busy", size)).offset >= size
    await sessions.signal("busy", signal.SIGKILL)
    assert not [name for name in open_files(process.pid) if "handover" in name]


async def test_again_and_again(
    agent: AgentProcess, connect: Connect, port: Port, newer: Path
) -> None:
    """Nothing is lost of a counter's output, and what is waiting for the end still waits."""
    process = agent.start(init="test-init")
    connection = await connect()
    counter = "i=0; while [ $i -lt 3000 ]; do i=$((i+1)); echo $i; done"
    await Sessions(connection).start("count", script(counter))
    waiting = agent.start("service")
    try:
        async with asyncio.timeout(PATIENCE):
            await connection.wait_settled()
        for number, binary in enumerate((newer, agent.binary, newer), 2):
            await upgrade(connection, binary, PATIENCE)
            await connection.close()
            await eventually(dialled(port, number))
            connection = await connect()
        sessions = Sessions(connection)
        await wait_end(sessions, "count")
        outputs = await to_the_end(await sessions.attach("count"))
        text = b"".join(output.data for output in outputs)
        assert text == "".join(f"{n}\n" for n in range(1, 3001)).encode()
        assert port.dials == 4, "the waiting one still waits"
        assert connection.settled_at
        process.kill()
        process.wait()
        await eventually(lambda: port.dials == 5)
        assert (await connect()).hello.agent_version != "9.9.9", "its own file has not changed"
    finally:
        waiting.kill()


async def test_one_that_waits_takes_over_as_what_lies_in_its_place(
    agent: AgentProcess, connect: Connect, port: Port, newer: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own-agent"
    shutil.copy(agent.binary, own)
    first = agent.start(init="test-init")
    connection = await connect()
    agent.binary = own
    agent.start("service")
    async with asyncio.timeout(PATIENCE):
        await connection.wait_settled()
    shutil.copy(newer, tmp_path / "next")
    (tmp_path / "next").replace(own)
    first.kill()
    first.wait()
    await eventually(lambda: port.dials == 2)
    assert (await connect()).hello.agent_version == "9.9.9"


async def test_input_on_its_way_arrives(
    agent: AgentProcess, connect: Connect, port: Port, newer: Path, tmp_path: Path
) -> None:
    agent.start()
    connection = await connect()
    sessions = Sessions(connection)
    go, data = tmp_path / "go", bytes(range(256)) * 900  # more than a pipe and a window
    await sessions.start(
        "slow", script(f"until [ -e {go} ]; do sleep 0.01; done; sha256sum", stdin=True)
    )
    attachment = await sessions.attach("slow")
    reading = asyncio.create_task(attachment.read())
    writing = asyncio.create_task(attachment.write(data[: 64 << 10]))
    await writing
    await upgrade(connection, newer, PATIENCE)
    await connection.close()
    await asyncio.gather(reading, return_exceptions=True)
    await eventually(lambda: port.dials == 2)
    attachment = await Sessions(await connect()).attach("slow")
    go.touch()
    reading2 = asyncio.create_task(read_until(attachment, b"-\n"))
    await attachment.write(data[64 << 10 :])
    await attachment.write_eof()
    assert (await reading2).decode().split()[0] == hashlib.sha256(data).hexdigest()


async def test_what_cannot_be_kept_is_not_lost(
    agent: AgentProcess, connect: Connect, newer: Path, tmp_path: Path
) -> None:
    agent.start()
    connection = await connect()
    execution = await connection.start(Program(["sleep", "600"]))
    with pytest.raises(Retryable, match="would be lost"):
        await upgrade(connection, newer, PATIENCE)
    assert alive(execution.pid)
    execution.close()
    await eventually(lambda: not alive(execution.pid))

    wrong = tmp_path / "wrong"
    for content, reason in [
        (b"not a program", "format"),
        (b"#!/bin/sh\necho 2\n", "cannot take over"),
        (b"#!/bin/sh\nexit 1\n", "cannot take over"),
    ]:
        wrong.write_bytes(content)
        with pytest.raises(Invalid, match=reason):
            await upgrade(connection, wrong, PATIENCE)
    header = {"op": "upgrade", "size": 3, "sha256": "0" * 64}
    with pytest.raises(Exception, match="not the binary"):
        await connection.exchange(header, PATIENCE, b"abc")
    assert list((agent.sandbox / "usr/bin").iterdir()) == []
    assert (await connection.heartbeat(PATIENCE)).uptime
    assert (await Files(connection).stat("/usr/bin")).type == "directory"


async def test_an_agent_that_runs_an_older_one_is_told_apart() -> None:
    hello = Hello.parse(HELLO)
    assert is_outdated(replace(hello, agent_version="0.2.9"))
    assert is_outdated(replace(hello, agent_version="strange"))
    assert not is_outdated(replace(hello, agent_version="99.0.0"))


async def test_an_agent_too_old_to_be_replaced(tmp_path: Path) -> None:
    ends, guest = await pair()
    opening = asyncio.create_task(AgentConnection.open(*ends, hello_timeout=PATIENCE))
    await guest.shake_hands()
    await guest.send(announcement(2, HELLO))
    connection = await opening
    small = tmp_path / "agent"
    small.write_bytes(b"x")
    upgrading = asyncio.create_task(upgrade(connection, small))
    number = 0
    while not number % 2:
        _, _, number, *_ = await guest.receive()
    refusal = {"ok": False, "error": {"code": "unknown-op", "text": "no"}}
    data = header_bytes(refusal)
    await guest.send(frame(Type.DATA, Flag.ACK | Flag.FIN, number, len(data), data))
    with pytest.raises(Conflict) as caught:
        await upgrading
    assert caught.value.code == "agent-outdated"
    await connection.close()
    guest.writer.transport.abort()

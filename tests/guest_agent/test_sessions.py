"""Programs that live on without the host, run by the real agent on this machine."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from guest_agent.chunks import ExitStatus
from guest_agent.connection import AgentConnection
from guest_agent.exec import Program, Terminal
from guest_agent.sessions import MIN_KEEP, Attachment, Output, Sessions, SessionState
from nexus_site.core.errors import Conflict, Invalid, NotFound, Retryable

from .conftest import PATIENCE, AgentProcess, Port, eventually
from .test_exec import alive

Connect = Callable[[], Awaitable[AgentConnection]]
MEGABYTE = 1 << 20
ID = "aaaaaaaaaaaac"


@pytest.fixture
async def connection(agent: AgentProcess, connect: Connect) -> AgentConnection:
    agent.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\n")
    agent.start()
    return await connect()


@pytest.fixture
def sessions(connection: AgentConnection) -> Sessions:
    return Sessions(connection)


def script(text: str, **wanted: object) -> Program:
    return Program(["sh", "-c", text], **wanted)  # type: ignore[arg-type]


async def to_the_end(attachment: Attachment) -> list[Output]:
    outputs = []
    async with asyncio.timeout(PATIENCE):
        while output := await attachment.read():
            outputs.append(output)
    attachment.close()
    return outputs


async def read_until(attachment: Attachment, wanted: bytes) -> bytes:
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while wanted not in seen:
            output = await attachment.read()
            assert output, f"it ended: {attachment.exit} after {seen!r}"
            seen += output.data
    return seen


async def until(sessions: Sessions, state: Callable[[dict[str, SessionState]], object]) -> None:
    """Returns once what the agent tells of its sessions is so."""
    async with asyncio.timeout(PATIENCE):
        while not state({s.id: s for s in await sessions.list()}):  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0.01)


async def wait_end(sessions: Sessions, session_id: str = ID) -> None:
    await until(sessions, lambda states: states[session_id].exit)


async def test_lives_on_and_is_seen_from_its_beginning(
    agent: AgentProcess, connect: Connect, sessions: Sessions, port: Port, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    started = await sessions.start(
        ID, script(f"echo one; echo two >&2; until [ -e {go} ]; do sleep 0.01; done; echo three")
    )
    assert port.agent
    port.agent[1].transport.abort()
    await eventually(lambda: port.dials == 2)
    again = Sessions(await connect())
    go.touch()
    attachment = await again.attach(ID)
    assert (attachment.pid, attachment.offset) == (started.pid, 0)
    outputs = await to_the_end(attachment)
    assert b"".join(o.data for o in outputs if o.kind == 1) == b"one\nthree\n"
    assert b"".join(o.data for o in outputs if o.kind == 2) == b"two\n"
    assert outputs[0].offset == 0
    assert attachment.exit == ExitStatus(code=0)
    assert attachment.offset == len("one\ntwo\nthree\n")


async def test_the_same_name_is_the_same_session(sessions: Sessions) -> None:
    first = await sessions.start(ID, script("sleep 600"))
    second = await sessions.start(ID, script("echo other"))
    assert (first.existing, second.existing) == (False, True)
    assert first.pid == second.pid
    await sessions.signal(ID, signal.SIGKILL)
    await wait_end(sessions)
    assert (await sessions.start(ID, script("true"))).existing, "until it is forgotten"
    await sessions.forget(ID)
    assert not (await sessions.start(ID, script("true"))).existing


async def test_a_session_is_told(sessions: Sessions) -> None:
    await sessions.start(ID, script("printf hello; exit 3", user="root", cwd="/usr"), keep=MIN_KEEP)
    await wait_end(sessions)
    attachment = await sessions.attach(ID)
    (state,) = await sessions.list()
    assert (state.id, state.argv) == (ID, ("sh", "-c", "printf hello; exit 3"))
    assert (state.user, state.cwd, state.tty, state.stdin) == ("root", "/usr", False, False)
    assert (state.first, state.size, state.keep, state.attached) == (0, 5, MIN_KEEP, 1)
    assert state.exit == ExitStatus(code=3)
    assert state.ended
    assert 1.7e9 < state.started <= state.ended + 0.01
    attachment.close()


async def test_only_the_end_of_the_output_is_kept(sessions: Sessions) -> None:
    await sessions.start(ID, script("seq -w 1 10000"), keep=MIN_KEEP)
    await wait_end(sessions)
    everything = "".join(f"{n:05}\n" for n in range(1, 10_001)).encode()
    outputs = await to_the_end(await sessions.attach(ID))
    assert outputs[0].offset == len(everything) - MIN_KEEP
    assert b"".join(o.data for o in outputs) == everything[-MIN_KEEP:]
    outputs = await to_the_end(await sessions.attach(ID, len(everything) - 6))
    assert [(o.offset, o.data) for o in outputs] == [(len(everything) - 6, b"10000\n")]
    assert await to_the_end(await sessions.attach(ID, 2**60)) == []


async def test_a_slow_host_misses_output_and_knows_it(
    sessions: Sessions, connection: AgentConnection
) -> None:
    """The program goes on at its own pace; the host sees a gap, and everything after it."""
    size = 20 * MEGABYTE
    await sessions.start(ID, script("read go; head -c 20971520 /dev/zero; printf end", stdin=True))
    attachment = await sessions.attach(ID)
    await attachment.write(b"go\n")
    await wait_end(sessions)
    outputs = await to_the_end(attachment)
    assert attachment.offset == size + 3
    assert sum(o.lost for o in outputs) > size // 2
    assert sum(o.lost + len(o.data) for o in outputs) == size + 3
    assert outputs[-1].data.endswith(b"end")


async def test_both_outputs_keep_their_order(sessions: Sessions) -> None:
    """However often they change; what is too much to remember is forgotten, not mixed up."""
    await sessions.start(
        ID,
        Program(
            [
                "python3",
                "-c",
                "import os\nfor i in range(9000): os.write(1 + i % 2, b'%05d' % i)",
            ]
        ),
    )
    await wait_end(sessions)
    outputs = await to_the_end(await sessions.attach(ID))
    assert any(o.data.endswith(b"08999") for o in outputs)
    for kind in (1, 2):
        numbers = [
            int(data[i : i + 5])
            for data in [b"".join(o.data for o in outputs if o.kind == kind)]
            for i in range(0, len(data), 5)
        ]
        assert numbers == sorted(numbers)
        assert all(n % 2 == kind - 1 for n in numbers)


async def test_several_look_and_type_at_once(sessions: Sessions) -> None:
    await sessions.start(ID, script("cat", stdin=True))
    one, two = await sessions.attach(ID), await sessions.attach(ID)
    await one.write(b"from one\n")
    await two.write(b"from two\n")
    for attachment in (one, two):
        seen = await read_until(attachment, b"from one\n")
        if b"from two\n" not in seen:
            await read_until(attachment, b"from two\n")
    one.close()
    await two.write(b"alone\n")
    await read_until(two, b"alone\n")
    await two.write_eof()
    assert await to_the_end(two) == []
    assert two.exit == ExitStatus(code=0)


async def test_input_carries_whole_and_is_bounded(sessions: Sessions) -> None:
    data = os.urandom(MEGABYTE)
    await sessions.start(ID, script("sha256sum; sleep 600", stdin=True))
    attachment = await sessions.attach(ID)
    reading = asyncio.create_task(read_until(attachment, b"-\n"))
    await attachment.write(data)
    await attachment.write_eof()
    assert (await reading).decode().split()[0] == hashlib.sha256(data).hexdigest()
    attachment.close()


async def test_input_that_nobody_reads_holds_nobody_up(sessions: Sessions) -> None:
    await sessions.start(ID, script("sleep 600", stdin=True))
    for _ in range(5):
        attachment = await sessions.attach(ID)
        writing = asyncio.create_task(attachment.write(bytes(MEGABYTE)))
        reading = asyncio.create_task(attachment.read())
        await asyncio.sleep(0.05)
        assert not writing.done(), "a window is all that is on its way"
        attachment.close()
        await asyncio.gather(writing, reading, return_exceptions=True)
    attachment = await sessions.attach(ID)
    await attachment.signal(signal.SIGTERM)
    assert await to_the_end(attachment) == []
    assert attachment.exit == ExitStatus(signal=signal.SIGTERM)


async def test_what_was_typed_before_leaving_arrives(sessions: Sessions) -> None:
    await sessions.start(ID, script("sleep 0.3; cat", stdin=True))
    attachment = await sessions.attach(ID)
    await attachment.write(b"last words\n")
    attachment.close()
    await read_until(await sessions.attach(ID), b"last words\n")


async def test_closing_a_look_ends_nothing(sessions: Sessions) -> None:
    started = await sessions.start(ID, script("sleep 600"))
    for _ in range(40):
        (await sessions.attach(ID)).close()
    assert alive(started.pid)
    await until(sessions, lambda states: not states[ID].attached)


async def test_the_time_of_a_session_is_kept(sessions: Sessions) -> None:
    await sessions.start(ID, script("sleep 600", timeout=0.2))
    attachment = await sessions.attach(ID)
    assert await to_the_end(attachment) == []
    assert attachment.exit == ExitStatus(signal=signal.SIGKILL, timed_out=True)


async def test_what_is_refused(sessions: Sessions) -> None:
    with pytest.raises(NotFound):
        await sessions.attach("nobody")
    with pytest.raises(NotFound):
        await sessions.forget("nobody")
    with pytest.raises(NotFound):
        await sessions.signal("nobody", 15)
    with pytest.raises(Invalid, match="no program nothing-here") as caught:
        await sessions.start(ID, Program(["nothing-here"]))
    assert caught.value.code == "cannot-run"
    for wrong in ("", "a" * 65, "a/b", "ä"):
        with pytest.raises(Invalid, match="letters"):
            await sessions.start(wrong, script("true"))
    for keep in (1, 9 * MEGABYTE):
        with pytest.raises(Invalid, match="keep"):
            await sessions.start(ID, script("true"), keep=keep)
    await sessions.start(ID, script("sleep 600"))
    with pytest.raises(Retryable, match="still runs"):
        await sessions.forget(ID)
    attachment = await sessions.attach(ID)
    with pytest.raises(Conflict, match="no input"):
        await attachment.write(b"x")
    attachment.close()


async def test_many_sessions_and_no_more(sessions: Sessions) -> None:
    for n in range(64):
        await sessions.start(f"s{n}", script("exec sleep 600" if n else "true"), keep=MIN_KEEP)
    await wait_end(sessions, "s0")
    await sessions.start("more", script("exec sleep 600"), keep=MIN_KEEP)
    assert "s0" not in [state.id for state in await sessions.list()], "it made room"
    with pytest.raises(Retryable, match="as many sessions"):
        await sessions.start("most", script("true"))
    for state in await sessions.list():
        await sessions.signal(state.id, signal.SIGKILL)


async def test_looks_are_bounded(sessions: Sessions) -> None:
    await sessions.start(ID, script("sleep 600"))
    looks = [await sessions.attach(ID) for _ in range(16)]
    with pytest.raises(Retryable, match="look at this session"):
        await sessions.attach(ID)
    for look in looks:
        look.close()


async def test_sessions_and_executions_get_the_vms_variables(
    agent: AgentProcess, connection: AgentConnection, sessions: Sessions
) -> None:
    agent.write("etc/nexus/env", "A='it'\\''s\ntwo lines'\nnonsense\nB='plain'\nC='open")
    await sessions.start(ID, script('printf "%s|%s|%s" "$A" "$B" "$C"', env={"B": "given"}))
    await wait_end(sessions)
    (output,) = await to_the_end(await sessions.attach(ID))
    assert output.data == b"it's\ntwo lines|given|"


# Terminals


async def test_a_terminal_is_one(sessions: Sessions) -> None:
    show = "tty; stty size; echo $TERM; cut -d' ' -f8 /proc/$$/stat; echo $$; cat"
    started = await sessions.start(ID, script(show, tty=Terminal(33, 101, "vt100")))
    assert started.tty
    attachment = await sessions.attach(ID)
    seen = (await read_until(attachment, f"{started.pid}\r\n{started.pid}\r\n".encode())).decode()
    lines = seen.split("\r\n")
    assert lines[0].startswith("/dev/pts/")
    assert lines[1:3] == ["33 101", "vt100"]
    await attachment.write(b"echoed\n")
    await read_until(attachment, b"echoed\r\nechoed\r\n")
    await attachment.write_eof()
    await to_the_end(attachment)
    assert attachment.exit == ExitStatus(code=0)


async def test_a_terminal_changes_its_size(sessions: Sessions) -> None:
    await sessions.start(
        ID,
        script("trap 'stty size' WINCH; echo ready; while :; do sleep 0.05; done", tty=Terminal()),
    )
    attachment = await sessions.attach(ID)
    await read_until(attachment, b"ready")
    await attachment.resize(50, 120)
    await read_until(attachment, b"50 120")
    with pytest.raises(Invalid):
        await attachment.resize(5000, 1)
    attachment.close()


async def test_keys_make_signals(sessions: Sessions) -> None:
    await sessions.start(
        ID,
        script(
            "trap 'echo got it; exit' INT; echo ready; while :; do sleep 0.05; done", tty=Terminal()
        ),
    )
    attachment = await sessions.attach(ID)
    await read_until(attachment, b"ready")
    await attachment.write(b"\x03")
    await read_until(attachment, b"got it")
    await to_the_end(attachment)


async def test_a_login_shell(agent: AgentProcess, sessions: Sessions, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    agent.write("etc/passwd", f"root:x:0:0:root:{home}:/bin/bash\n")
    await sessions.start(ID, Program(shell=True, tty=Terminal()))
    attachment = await sessions.attach(ID)
    await attachment.write(b"echo $0 $SHELL $PWD; shopt -q login_shell && echo login\n")
    await read_until(attachment, f"-bash /bin/bash {home}\r\nlogin\r\n".encode())
    await attachment.write(b"exit 4\n")
    await to_the_end(attachment)
    assert attachment.exit == ExitStatus(code=4)


async def test_a_terminal_that_hangs_up_ends_what_it_held(connection: AgentConnection) -> None:
    """A plain execution whose host goes: its group is killed, its terminal's foreground too."""
    execution = await connection.start(
        Program(["sh", "-c", "set -m; sh -c 'echo $$; exec sleep 600'"], tty=Terminal())
    )
    async with asyncio.timeout(PATIENCE):
        seen = await execution.read()
    assert seen
    child = int(seen[1])
    assert os.getpgid(child) != execution.pid
    execution.close()
    await eventually(lambda: not alive(execution.pid) and not alive(child))


async def test_an_execution_on_a_terminal(connection: AgentConnection) -> None:
    execution = await connection.start(
        Program(
            ["sh", "-c", "stty -echo; stty size; read a; echo [$a]; stty size"], tty=Terminal(9, 9)
        )
    )
    seen = b""
    async with asyncio.timeout(PATIENCE):
        while b"9 9\r\n" not in seen:
            output = await execution.read()
            assert output
            seen += output[1]
        await execution.resize(10, 11)
        await execution.write(b"word\n")
        while output := await execution.read():
            seen += output[1]
    assert seen.endswith(b"[word]\r\n10 11\r\n")
    assert execution.exit == ExitStatus(code=0)
    execution.close()

"""Programs that the real agent runs, on this machine in place of a guest."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from guest_agent.chunks import CHUNK, Kind
from guest_agent.connection import AgentConnection
from guest_agent.exec import Execution, ExitStatus, Program
from nexus_site.core.errors import Broken, Invalid, Retryable

from .conftest import PATIENCE, AgentProcess, Port, eventually

Connect = Callable[[], Awaitable[AgentConnection]]
MEGABYTE = 1 << 20
OUR_SLACK = Path("/proc/self/timerslack_ns").read_bytes()


@pytest.fixture
async def connection(agent: AgentProcess, connect: Connect) -> AgentConnection:
    agent.write("etc/passwd", "root:x:0:0:root:/root:/bin/sh\notter:x:1234:1234::/home/otter:\n")
    agent.write("etc/group", "root:x:0:\notter:x:1234:\nriver:x:77:otter,fish\n")
    agent.start()
    return await connect()


async def run(
    connection: AgentConnection, *argv: str, **wanted: object
) -> tuple[ExitStatus, bytes, bytes]:
    """How it ended, and what it wrote to stdout and stderr."""
    said = {1: b"", 2: b""}

    def keep(kind: int, data: bytes) -> None:
        said[kind] += data

    async with asyncio.timeout(PATIENCE):
        status = await connection.execute(argv, on_output=keep, **wanted)  # type: ignore[arg-type]
    return status, said[1], said[2]


async def shell(connection: AgentConnection, script: str) -> Execution:
    return await connection.start(Program(["sh", "-c", script], stdin=True))


async def first_line(execution: Execution) -> str:
    text = b""
    async with asyncio.timeout(PATIENCE):
        while not text.endswith(b"\n"):
            output = await execution.read()
            assert output, f"it ended: {execution.exit}"
            text += output[1]
    return text.decode().strip()


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that nobody reaps does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


async def test_keeps_the_two_outputs_apart_and_passes_the_exit_on(
    connection: AgentConnection,
) -> None:
    ended = await run(connection, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert ended == (ExitStatus(code=7), b"out\n", b"err\n")


async def test_merged_outputs_keep_their_order(connection: AgentConnection) -> None:
    script = "for i in 1 2 3 4 5; do echo out $i; echo err $i >&2; done"
    _, out, err = await run(connection, "sh", "-c", script, merge=True)
    assert out.decode().split() == [w for n in "12345" for w in ("out", n, "err", n)]
    assert err == b""


async def test_arguments_come_as_they_are(connection: AgentConnection) -> None:
    odd = ["a b", "$HOME", "", "*", "ü\n'\"", "-n"]
    _, out, _ = await run(connection, "printf", "%s|", *odd)
    assert out.decode() == "".join(f"{word}|" for word in odd)


async def test_the_environment_is_the_default_one_and_what_was_given(
    connection: AgentConnection,
) -> None:
    _, out, _ = await run(connection, "/usr/bin/env", env={"COLOUR": "blue = ü", "LANG": "C"})
    assert sorted(out.decode().splitlines()) == [
        "COLOUR=blue = ü",
        "HOME=/root",
        "LANG=C",
        "LOGNAME=root",
        "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "USER=root",
    ]


async def test_runs_in_its_directory_with_nothing_to_read(
    connection: AgentConnection, tmp_path: Path
) -> None:
    _, out, _ = await run(connection, "sh", "-c", "pwd; cat; readlink /proc/self/fd/0", cwd="/usr")
    assert out.decode().split() == ["/usr", "/dev/null"]


async def test_inherits_nothing_of_the_agent(connection: AgentConnection) -> None:
    """No files, no signals that are ignored or blocked, no place before others in memory's want."""
    show = (
        "ls /proc/self/fd; grep -E 'Sig(Blk|Ign)' /proc/self/status; cat /proc/self/oom_score_adj"
    )
    _, out, _ = await run(connection, "sh", "-c", show, merge=True)
    *files, blocked, ignored, score = out.decode().splitlines()
    assert files == ["0", "1", "2", "3"], "ls itself opens the fourth"
    assert int(blocked.split()[1], 16) == int(ignored.split()[1], 16) == 0
    assert score == "0"


async def test_its_timers_are_as_exact_as_anybodys(connection: AgentConnection) -> None:
    """The agent makes a thread of its own slack, and no program is to inherit that."""
    for _ in range(3):
        assert (await run(connection, "cat", "/proc/self/timerslack_ns"))[1] == OUR_SLACK


async def test_is_the_leader_of_a_session(connection: AgentConnection) -> None:
    execution = await shell(connection, "read line < /proc/self/stat; echo $$; echo $line; cat")
    words = await first_line(execution)
    assert int(words.split()[0]) == execution.pid
    assert os.getsid(execution.pid) == os.getpgid(execution.pid) == execution.pid
    execution.close()


async def test_runs_as_another_user(connection: AgentConnection) -> None:
    if os.geteuid():
        pytest.skip("only root may be another user")
    show = "id -u; id -g; id -G; echo $HOME $USER"
    _, out, _ = await run(connection, "sh", "-c", show, user="otter")
    assert out.decode().splitlines() == ["1234", "1234", "1234 77", "/home/otter otter"]
    _, out, _ = await run(connection, "sh", "-c", show, user="4321:river")
    assert out.decode().splitlines() == ["4321", "77", "77", "/"]


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (Program(["no-such-program"]), "no program no-such-program"),
        (Program(["/etc/passwd"]), "permission denied"),
        (Program(["/no/such"]), "no such file"),
        (Program(["true"], cwd="/no/such"), "no directory /no/such"),
        (Program(["true"], user="nobody-here"), "no user nobody-here"),
        (Program(["true"], user="0:nobody-here"), "no group nobody-here"),
        (Program(["true"], timeout=-1), "timeout"),
    ],
)
async def test_says_why_it_cannot_run(
    connection: AgentConnection, program: Program, reason: str
) -> None:
    with pytest.raises(Invalid, match=reason) as caught:
        await connection.start(program)
    assert caught.value.code == "cannot-run"


@pytest.mark.parametrize(
    "fields",
    [
        {"argv": []},
        {"argv": [""]},
        {"argv": "true"},
        {"argv": ["true", 1]},
        {"argv": ["true"], "env": {"A=B": "c"}},
        {"argv": ["true"], "env": {"A": 1}},
        {"argv": ["true"], "cwd": "usr"},
        {"argv": ["true"], "stdin": "yes"},
        {"argv": ["true\0"]},
    ],
)
async def test_refuses_what_is_no_program(
    connection: AgentConnection, fields: dict[str, object]
) -> None:
    stream = await connection.open_stream({"op": "exec", **fields})
    with pytest.raises(Broken, match="refuses"):
        await connection.read_reply(stream)
    stream.reset()


async def test_tells_the_signal_that_ended_it(connection: AgentConnection) -> None:
    status, _, _ = await run(connection, "sh", "-c", "kill -TERM $$")
    assert status == ExitStatus(signal=signal.SIGTERM)
    assert status.shell_code == 128 + signal.SIGTERM


async def test_signals_reach_the_whole_group(connection: AgentConnection) -> None:
    execution = await shell(connection, "trap 'echo caught' USR1; sleep 600 & echo $!; wait; wait")
    child = int(await first_line(execution))
    # Until it is what it will be, the child has the shell's trap.
    await eventually(lambda: Path(f"/proc/{child}/comm").read_text() == "sleep\n")
    await execution.signal(signal.SIGUSR1)
    assert await first_line(execution) == "caught"
    async with asyncio.timeout(PATIENCE):
        assert await execution.read() is None
    assert execution.exit
    assert not alive(child)
    execution.close()


async def test_the_guest_keeps_the_time(connection: AgentConnection) -> None:
    execution = await connection.start(Program(["sleep", "600"], timeout=0.2))
    async with asyncio.timeout(PATIENCE):
        assert await execution.read() is None
    assert execution.exit == ExitStatus(signal=signal.SIGKILL, timed_out=True)
    execution.close()


async def test_carries_input_and_output_whole(connection: AgentConnection) -> None:
    data = random.Random(1).randbytes(4 * MEGABYTE)
    status, out, _ = await run(connection, "cat", stdin=data)
    assert status == ExitStatus(code=0)
    assert out == data


async def test_a_program_that_reads_no_input_does_not_hang_its_writer(
    connection: AgentConnection,
) -> None:
    status, _, _ = await run(connection, "sh", "-c", "exec <&-; echo done", stdin=bytes(MEGABYTE))
    assert status == ExitStatus(code=0)


async def test_signals_get_past_input_that_nobody_reads(connection: AgentConnection) -> None:
    execution = await connection.start(Program(["sleep", "600"], stdin=True))
    writing = asyncio.create_task(execution.write(bytes(MEGABYTE)))
    reading = asyncio.create_task(execution.read())
    await connection.heartbeat(PATIENCE)
    assert not writing.done(), "a window is all that is on its way"
    await execution.signal(signal.SIGTERM)
    async with asyncio.timeout(PATIENCE):
        assert await reading is None
        await writing
    assert execution.exit == ExitStatus(signal=signal.SIGTERM)
    execution.close()


async def test_a_host_that_waits_stops_the_program(connection: AgentConnection) -> None:
    """Nobody holds more than the windows, and nothing is lost after the program's end."""
    count = 40 * MEGABYTE // 10
    execution = await connection.start(Program(["seq", "-w", "1", str(count)]))
    received = b""
    while len(received) < MEGABYTE:
        output = await execution.read()
        assert output
        received += output[1]
    await connection.heartbeat(PATIENCE)
    assert alive(execution.pid)
    execution.close()
    await eventually(lambda: not alive(execution.pid))


async def test_output_waits_for_a_slow_host_after_the_end(connection: AgentConnection) -> None:
    """The grace is for pipes that stay open, not for a host that takes its time."""
    size = 300_000  # more than a window, less than a window and a pipe
    execution = await connection.start(Program(["head", "-c", str(size), "/dev/zero"]))
    await eventually(lambda: not alive(execution.pid))
    await asyncio.sleep(1.5)  # longer than the grace
    received = 0
    while output := await execution.read():
        received += len(output[1])
    assert received == size
    assert execution.exit == ExitStatus(code=0)
    execution.close()


@pytest.mark.parametrize("noise", ["sleep 600", "while echo noise; do :; done"])
async def test_what_runs_on_in_the_background_does_not_hold_the_answer(
    connection: AgentConnection, noise: str
) -> None:
    script = f"setsid sh -c '{noise}' & echo $!"
    status, out, _ = await run(connection, "sh", "-c", script)
    assert status == ExitStatus(code=0)
    child = int(out.split()[0])
    os.killpg(child, signal.SIGKILL) if noise == "sleep 600" else None
    await eventually(lambda: not alive(child))


@pytest.mark.parametrize("how", ["close", "half-close", "bad chunk", "lost connection"])
async def test_nothing_runs_on_for_a_host_that_is_gone(
    connection: AgentConnection, port: Port, how: str
) -> None:
    execution = await shell(connection, "trap '' TERM HUP; sleep 600 & echo $!; wait")
    child = int(await first_line(execution))
    assert alive(child)
    match how:
        case "close":
            execution.close()
        case "half-close":
            execution._stream.write_eof()
        case "bad chunk":
            await execution._stream.write(CHUNK.pack(99, 0))
        case "lost connection":
            await connection.close()
            assert port.agent
            port.agent[1].transport.abort()
    await eventually(lambda: not alive(child) and not alive(execution.pid))


async def test_a_cancelled_call_ends_the_program(connection: AgentConnection) -> None:
    pids: list[int] = []
    call = asyncio.create_task(
        connection.execute(
            ["sh", "-c", "echo $$; exec sleep 600"],
            on_output=lambda _, data: pids.append(int(data)),
        )
    )
    await eventually(lambda: pids)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await eventually(lambda: not alive(pids[0]))


async def test_no_zombies_are_left(agent: AgentProcess, connection: AgentConnection) -> None:
    for _ in range(5):
        await run(connection, "true")
    (process,) = agent._processes
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    await eventually(lambda: children.read_text() == "")


async def test_many_at_once_and_no_more(connection: AgentConnection) -> None:
    running = [await connection.start(Program(["sleep", "600"])) for _ in range(64)]
    with pytest.raises(Retryable, match="64") as caught:
        await connection.start(Program(["true"]))
    assert caught.value.code == "agent-busy"
    for execution in running:
        execution.close()

    await eventually(lambda: not any(alive(execution.pid) for execution in running))
    assert (await run(connection, "true"))[0] == ExitStatus(code=0)


async def test_an_agent_that_ignores_hangups_starts_programs_that_do_not(
    agent: AgentProcess, connect: Connect
) -> None:
    """Some inits start services with signals ignored."""
    script = f"""
        import os, signal, sys
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        os.execv({str(agent.binary)!r}, sys.argv[1:])
    """
    wrapper = agent.sandbox / "agent"
    wrapper.write_text(
        f"#!{sys.executable}\n{textwrap.dedent(script)}".replace(
            "sys.argv[1:]", "['nexus-agent', *sys.argv[1:]]"
        )
    )
    wrapper.chmod(0o755)
    agent.binary = wrapper
    agent.start()
    _, out, _ = await run(await connect(), "grep", "SigIgn", "/proc/self/status")
    assert int(out.split()[1], 16) == 0


def test_kinds_are_those_of_the_protocol() -> None:
    assert [kind.value for kind in Kind] == [0, 1, 2, 3, 4, 5, 6, 7]

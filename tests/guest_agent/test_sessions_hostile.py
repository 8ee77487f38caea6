"""Sessions and files of a guest that lies about them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_agent import files as files_module
from guest_agent.connection import AgentConnection
from guest_agent.exec import Program, Terminal
from guest_agent.files import FileInfo, Files
from guest_agent.refusals import AgentRefused, meaning
from guest_agent.sessions import Attachment, Sessions, SessionState
from guest_agent.yamux import Flag, ProtocolError, Type
from nexus_site.core.errors import Broken, Conflict, Invalid, NexusError, Retryable

from .conftest import PATIENCE
from .guests import HELLO, Guest, announcement, frame, header_bytes, pair, session
from .test_exec_hostile import chunk
from .test_messages import json_values

STATE: dict[str, Any] = {
    "id": "aaaaaaaaaaaac",
    "argv": ["make"],
    "pid": 1,
    "user": "",
    "cwd": "/",
    "tty": False,
    "stdin": False,
    "started": 1.8e9,
    "keep": 4096,
    "first": 0,
    "size": 10,
    "attached": 0,
}
FILE: dict[str, Any] = {
    "ok": True,
    "name": "a",
    "type": "file",
    "size": 1,
    "mode": 0o644,
    "uid": 0,
    "gid": 0,
    "modified": 1.8e9,
}


@asynccontextmanager
async def attached(offset: int = 0) -> AsyncIterator[tuple[Attachment, Guest]]:
    async with session() as (opened, guest, _), asyncio.timeout(PATIENCE):
        stream = opened.open_stream()
        await stream.write(b"header")
        await guest.receive()
        yield Attachment(stream, 1, offset, tty=True, stdin=True), guest


@asynccontextmanager
async def connected() -> AsyncIterator[tuple[AgentConnection, Guest]]:
    ends, guest = await pair()
    opening = asyncio.create_task(AgentConnection.open(*ends, hello_timeout=PATIENCE))
    await guest.shake_hands()
    await guest.send(announcement(2, HELLO))
    connection = await opening
    try:
        async with asyncio.timeout(PATIENCE):
            yield connection, guest
    finally:
        await connection.close()
        guest.writer.transport.abort()


async def asked(guest: Guest) -> int:
    """The number of the stream on which the host has asked for something."""
    while True:
        kind, _, number, *_ = await guest.receive()
        if kind is Type.DATA and number % 2:
            return number


async def say(guest: Guest, number: int, data: bytes, flags: Flag = Flag.NONE) -> None:
    await guest.send(frame(Type.DATA, flags, number, len(data), data))


def gap(offset: int) -> bytes:
    return chunk(7, offset.to_bytes(8))


async def test_a_gap_is_told_with_the_next_output() -> None:
    async with attached(5) as (look, guest):
        await say(guest, 1, chunk(1, b"ab") + gap(100) + gap(200) + chunk(2, b"c") + chunk(1, b"d"))
        outputs = [await look.read() for _ in range(3)]
        assert [(o.kind, o.offset, o.data, o.lost) for o in outputs if o] == [
            (1, 5, b"ab", 0),
            (2, 200, b"c", 193),
            (1, 201, b"d", 0),
        ]
        look.close()


@pytest.mark.parametrize(
    "lie",
    [
        gap(5),
        gap(4),
        gap(2**63),
        chunk(7, b""),
        chunk(7, bytes(7)),
        chunk(6, bytes(4)),
        chunk(8, b"x"),
        chunk(0, b"x"),
    ],
)
async def test_a_lie_ends_the_look(lie: bytes) -> None:
    async with attached(5) as (look, guest):
        await say(guest, 1, lie)
        with pytest.raises(Broken, match="broke the protocol"):
            await look.read()
        _, flags, number, *_ = await guest.receive()
        assert (flags, number) == (Flag.RST, 1)


async def test_an_execution_knows_no_gaps() -> None:
    from .test_exec_hostile import execution

    async with execution() as (program, guest):
        await say(guest, 1, gap(9))
        with pytest.raises(Broken):
            await program.read()


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.binary(max_size=30)
        | st.builds(chunk, st.integers(0, 9), st.binary(max_size=12))
        | st.builds(gap, st.integers(0, 2**64 - 1)),
        max_size=6,
    )
)
def test_anything_a_guest_says_is_output_in_order_or_an_error(pieces: list[bytes]) -> None:
    async def run() -> None:
        async with attached() as (look, guest):
            for piece in pieces:
                await say(guest, 1, piece)
            await say(guest, 1, b"", Flag.FIN)
            at = 0
            with contextlib.suppress(NexusError):
                while output := await look.read():
                    assert output.offset == at + output.lost
                    at = output.offset + len(output.data)
            look.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "change",
    [
        {"argv": "make"},
        {"argv": [1]},
        {"pid": -1},
        {"first": 11},
        {"size": 2**64},
        {"attached": 1000},
        {"exit": {"code": 300}, "ended": 1},
        {"exit": [], "ended": 1},
        {"exit": {"code": 0}},
        {"started": "then"},
    ],
)
def test_a_session_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    assert SessionState.parse(STATE).argv == ("make",)
    with pytest.raises(ProtocolError):
        SessionState.parse(STATE | change)


@settings(deadline=None)
@given(st.sampled_from([*STATE, "exit", "ended"]), json_values)
def test_any_value_in_a_session_is_read_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        SessionState.parse(STATE | {key: value})


def test_what_a_session_is_called_is_fit_to_be_shown() -> None:
    state = SessionState.parse(STATE | {"argv": ["\x1b[31m<b>", "x" * 5000] * 600, "cwd": "/\x00"})
    assert state.argv[0] == "[31m<b>"
    assert len(state.argv) == 1000
    assert len(state.argv[1]) == 1000
    assert state.cwd == "/"


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": ".."},
        {"name": "a/b"},
        {"name": "a\0"},
        {"name": "x" * 300},
        {"name": "\ud800"},
        {"name": None},
        {"type": "link"},
        {"type": "link", "target": "x" * 5000},
        {"mode": 0o10000},
        {"size": -1},
        {"uid": 2**40},
        {"modified": None},
    ],
)
def test_a_file_that_cannot_be_is_refused(change: dict[str, Any]) -> None:
    assert FileInfo.parse(FILE).name == "a"
    assert FileInfo.parse(FILE | {"type": ["new"]}).type == "unknown"
    with pytest.raises(ProtocolError):
        FileInfo.parse(FILE | change)


@settings(deadline=None)
@given(st.sampled_from([*FILE, "target"]), json_values)
def test_any_value_in_a_file_is_read_or_refused(key: str, value: Any) -> None:
    with contextlib.suppress(ProtocolError):
        FileInfo.parse(json.loads(json.dumps(FILE | {key: value})))


@pytest.mark.parametrize(
    "records",
    [
        header_bytes(STATE) * 65,
        header_bytes(STATE | {"id": 5}),
        b"\0\1\0\1",
        b"\0\0\0\2[]",
    ],
)
async def test_a_lie_in_a_list_ends_the_connection(records: bytes) -> None:
    async with connected() as (connection, guest):
        listing = asyncio.create_task(Sessions(connection).list())
        number = await asked(guest)
        await say(guest, number, header_bytes({"ok": True}) + records, Flag.FIN)
        with pytest.raises(Broken, match="broke the protocol"):
            await listing
        assert "broke the protocol" in await connection.wait_closed()


async def test_a_list_that_stops_too_early_fails_only_the_call() -> None:
    async with connected() as (connection, guest):
        listing = asyncio.create_task(Sessions(connection).list())
        number = await asked(guest)
        await say(guest, number, header_bytes({"ok": True}) + b"\0\0\0\2{", Flag.FIN)
        with pytest.raises(Retryable):
            await listing


async def test_a_guest_that_takes_no_bytes_does_not_hold_a_writer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "STALL", 0.2)

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(100_000)

    async with connected() as (connection, guest):
        writing = asyncio.create_task(Files(connection).write("/a", endless()))
        number = await asked(guest)
        await say(guest, number, header_bytes({"ok": True}))
        with pytest.raises(Retryable, match="took or gave no bytes"):
            await writing


async def test_a_guest_that_gives_no_bytes_does_not_hold_a_reader(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(files_module, "STALL", 0.2)
    async with connected() as (connection, guest):
        reading = asyncio.create_task(Files(connection).read("/a"))
        await say(guest, await asked(guest), header_bytes(FILE) + b"x")
        received = []
        with pytest.raises(Retryable, match="took or gave no bytes"):
            async for data in await reading:
                received.append(data)
        assert received == [b"x"]


async def test_a_reset_is_no_end_of_a_file() -> None:
    async with connected() as (connection, guest):
        reading = asyncio.create_task(Files(connection).read("/a"))
        number = await asked(guest)
        await say(guest, number, header_bytes(FILE) + b"half")
        download = await reading
        await guest.send(frame(Type.WINDOW_UPDATE, Flag.RST, number, 0))
        with pytest.raises(Retryable):
            _ = [data async for data in download]


async def test_a_refusal_stops_a_writer_at_once() -> None:
    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield bytes(1000)
            await asyncio.sleep(0.01)

    async with connected() as (connection, guest):
        writing = asyncio.create_task(Files(connection).write("/a", endless()))
        number = await asked(guest)
        await say(guest, number, header_bytes({"ok": True}))
        refusal = {"ok": False, "error": {"code": "full", "text": "no space left"}}
        await say(guest, number, header_bytes(refusal))
        with pytest.raises(Conflict, match="no space left") as caught:
            await writing
        assert caught.value.code == "guest-disk-full"


async def test_an_agent_without_terminals_is_outdated() -> None:
    async with connected() as (connection, guest):
        starting = asyncio.create_task(connection.start(Program(["sh"], tty=Terminal())))
        await say(guest, await asked(guest), header_bytes({"ok": True, "pid": 5}))
        with pytest.raises(Conflict) as caught:
            await starting
        assert caught.value.code == "agent-outdated"


@pytest.mark.parametrize(
    ("reason", "code"),
    [
        ("not-found", "not-in-guest"),
        ("conflict", "guest-conflict"),
        ("denied", "guest-denied"),
        ("full", "guest-disk-full"),
        ("invalid", "guest-invalid"),
        ("cannot-run", "cannot-run"),
        ("busy", "agent-busy"),
        ("unknown-op", "agent-outdated"),
        ("failed", "agent-refused"),
        ("never heard of", "agent-refused"),
    ],
)
def test_refusals_have_a_meaning(reason: str, code: str) -> None:
    assert meaning(AgentRefused("why", reason)).code == code


def test_what_is_no_terminal_or_program_is_not_asked_for() -> None:
    for wrong in ({"rows": -1}, {"cols": 5000}, {"term": ""}, {"term": "a\n"}, {"term": "x" * 65}):
        with pytest.raises(Invalid):
            Terminal(**wrong)
    with pytest.raises(Invalid):
        Program(["sh"], shell=True)
    with pytest.raises(Invalid):
        Program()

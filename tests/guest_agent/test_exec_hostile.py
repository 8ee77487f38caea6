"""Programs of a guest that lies about them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_agent.chunks import CHUNK, INPUT_WINDOW, MAX_CHUNK, Kind
from guest_agent.exec import Execution, ExitStatus, Program
from guest_agent.yamux import Flag, Type
from nexus_site.core.errors import Broken, Invalid, NexusError, Retryable

from .conftest import PATIENCE, eventually
from .guests import Guest, frame, session


def chunk(kind: int, data: bytes) -> bytes:
    return CHUNK.pack(kind, len(data)) + data


@asynccontextmanager
async def execution() -> AsyncIterator[tuple[Execution, Guest]]:
    """A program that the host believes to run, and the guest that says so."""
    async with session() as (opened, guest, _), asyncio.timeout(PATIENCE):
        stream = opened.open_stream()
        await stream.write(b"header")
        await guest.receive()
        yield Execution(stream, 1), guest


async def say(guest: Guest, data: bytes, flags: Flag = Flag.NONE) -> None:
    await guest.send(frame(Type.DATA, flags, 1, len(data), data))


async def to_the_end(program: Execution) -> list[tuple[int, bytes]]:
    outputs = []
    while output := await program.read():
        outputs.append(output)
    return outputs


async def test_outputs_then_the_exit() -> None:
    async with execution() as (program, guest):
        await say(guest, chunk(1, b"out") + chunk(2, b"err") + chunk(3, b'{"code":0}'))
        assert await to_the_end(program) == [(1, b"out"), (2, b"err")]
        assert program.exit == ExitStatus(code=0)
        assert await program.read() is None
        await program.signal(9)  # to nobody
        program.close()


@pytest.mark.parametrize(
    "lie",
    [
        chunk(0, b"input"),
        chunk(4, b"\x09"),
        chunk(6, b""),
        chunk(1, b""),
        chunk(2, b""),
        chunk(5, bytes(4)),
        chunk(255, b""),
        CHUNK.pack(Kind.STDOUT, MAX_CHUNK + 1),
        CHUNK.pack(Kind.EXIT, 0xFFFFFFFF),
        chunk(3, b""),
        chunk(3, b"[" * 1000),
        chunk(3, b"{}"),
        chunk(3, b'{"code":256}'),
        chunk(3, b'{"code":-1}'),
        chunk(3, b'{"code":true}'),
        chunk(3, b'{"code":0.0}'),
        chunk(3, b'{"code":0,"signal":9}'),
        chunk(3, b'{"signal":0}'),
        chunk(3, b'{"signal":65}'),
        chunk(5, b"\0\0\1"),
        chunk(5, b"\0\0\0\1"),
    ],
)
async def test_a_lie_ends_the_stream_and_nothing_else(lie: bytes) -> None:
    async with execution() as (program, guest):
        await say(guest, lie)
        with pytest.raises(Broken, match="broke the protocol"):
            await program.read()
        assert program.exit is None
        kind, flags, number, *_ = await guest.receive()
        assert (kind, flags, number) == (Type.WINDOW_UPDATE, Flag.RST, 1)


async def test_a_flood_of_tiny_chunks_lets_others_work() -> None:
    async with execution() as (program, guest):
        turns = 0

        async def work() -> None:
            nonlocal turns
            while program.exit is None:
                turns += 1
                await asyncio.sleep(0)

        await say(guest, chunk(1, b"x") * 10_000)
        await eventually(lambda: len(program._stream._received) == 60_000)
        await say(guest, chunk(3, b'{"code":0}'))
        working = asyncio.create_task(work())
        assert len(await to_the_end(program)) == 10_000
        await working
        assert turns > 10_000 / 100


@pytest.mark.parametrize("end", [Flag.FIN, Flag.RST])
@pytest.mark.parametrize("said", [b"", b"\1", chunk(1, b"half")[:-1]])
async def test_a_stream_that_stops_is_no_exit(end: Flag, said: bytes) -> None:
    async with execution() as (program, guest):
        await say(guest, said, end)
        with pytest.raises(Retryable):
            await to_the_end(program)
        assert program.exit is None


async def test_input_waits_for_the_window() -> None:
    async with execution() as (program, guest):
        writing = asyncio.create_task(program.write(bytes(INPUT_WINDOW + 1)))
        reading = asyncio.create_task(program.read())
        received = b""
        while len(received) < INPUT_WINDOW + 2 * CHUNK.size:
            received += (await guest.receive())[4]
        await asyncio.sleep(0)
        assert not writing.done()
        await say(guest, chunk(5, (1).to_bytes(4)))
        await writing
        await say(guest, chunk(1, b"on"))
        assert await reading == (1, b"on")
        program.close()


async def test_a_writer_does_not_wait_for_a_program_that_ended() -> None:
    for ended in (chunk(3, b'{"code":1}'), b""):
        async with execution() as (program, guest):
            writing = asyncio.create_task(program.write(bytes(2 * INPUT_WINDOW)))
            await say(guest, ended)
            if ended:
                assert await program.read() is None
            program.close()
            await asyncio.gather(writing, return_exceptions=True)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.binary(max_size=40), max_size=6))
def test_anything_a_guest_says_is_output_an_exit_or_an_error_for_people(
    pieces: list[bytes],
) -> None:
    async def run() -> None:
        async with execution() as (program, guest):
            for piece in pieces:
                await say(guest, piece)
            await say(guest, b"", Flag.FIN)
            try:
                await to_the_end(program)
            except NexusError:
                assert program.exit is None
            program.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    "wanted",
    [
        {"argv": []},
        {"argv": [""]},
        {"argv": ["a\0"]},
        {"argv": ["a"], "env": {"": "b"}},
        {"argv": ["a"], "env": {"A=": "b"}},
        {"argv": ["a"], "env": {"A": "\0"}},
        {"argv": ["a"], "cwd": "tmp"},
    ],
)
def test_what_cannot_be_run_is_not_asked_for(wanted: dict[str, object]) -> None:
    with pytest.raises(Invalid):
        Program(**wanted)  # type: ignore[arg-type]


async def test_a_signal_that_does_not_exist_is_not_sent() -> None:
    async with execution() as (program, _):
        for number in (0, 65):
            with pytest.raises(Invalid):
                await program.signal(number)
        program.close()

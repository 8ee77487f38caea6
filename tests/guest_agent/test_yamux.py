"""The framing, byte by byte, and what a hostile guest can do with it: nothing."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from guest_agent import yamux
from guest_agent.yamux import WINDOW, Flag, Stream, Type
from nexus_site.core.errors import Retryable

from .conftest import PATIENCE, eventually
from .guests import Guest, frame, session

BIG = 0xFFFFFFFF


async def test_frames_are_those_of_the_specification() -> None:
    async with session() as (host, guest, _):
        stream = host.open_stream()
        await stream.write(b"hello")
        stream.write_eof()
        other = host.open_stream()
        await other.write(b"x")
        other.reset()
        expected = (
            bytes.fromhex("0000 0001 00000001 00000005") + b"hello"  # data, SYN, stream 1
            + bytes.fromhex("0001 0004 00000001 00000000")  # window update, FIN
            + bytes.fromhex("0000 0001 00000003 00000001") + b"x"
            + bytes.fromhex("0001 0008 00000003 00000000")  # window update, RST
        )  # fmt: skip
        assert await guest.reader.readexactly(len(expected)) == expected


async def test_answers_a_ping_and_counts_its_own() -> None:
    async with session() as (host, guest, _):
        await guest.send(bytes.fromhex("0002 0001 00000000 0000002a"))
        assert await guest.reader.readexactly(12) == bytes.fromhex("0002 0002 00000000 0000002a")
        ping = asyncio.create_task(host.ping(PATIENCE))
        kind, flags, number, opaque, _ = await guest.receive()
        assert (kind, flags, number) == (Type.PING, Flag.SYN, 0)
        await guest.send(
            frame(Type.PING, Flag.ACK, 0, opaque + 1),  # nobody asked
            frame(Type.PING, Flag.ACK, 0, opaque),
        )
        assert await ping > 0


async def test_takes_a_stream_of_the_guest() -> None:
    async with session() as (_, guest, accepted):
        await guest.send(frame(Type.DATA, Flag.SYN, 2, 3, b"abc"), frame(1, Flag.FIN, 2, 0))
        stream = await accepted.get()
        assert await stream.read_exactly(3) == b"abc"
        assert await stream.read() == b""
        await stream.write(b"hi")
        assert await guest.receive() == (Type.DATA, Flag.ACK, 2, 2, b"hi")


async def test_gives_window_back_as_the_reader_reads() -> None:
    async with session() as (_, guest, accepted):
        await guest.send(frame(Type.DATA, Flag.SYN, 2, WINDOW, bytes(WINDOW)))
        stream = await accepted.get()
        await eventually(lambda: len(stream._received) == WINDOW)
        assert len(await stream.read(WINDOW // 2 - 1)) == WINDOW // 2 - 1
        assert len(await stream.read(1)) == 1
        assert await guest.receive() == (Type.WINDOW_UPDATE, Flag.ACK, 2, WINDOW // 2, b"")


async def test_writes_no_more_than_the_window() -> None:
    async with session() as (host, guest, _):
        stream = host.open_stream()
        writing = asyncio.create_task(stream.write(bytes(WINDOW + 10)))
        got = 0
        while got < WINDOW:
            *_, data = await guest.receive()
            assert len(data) <= yamux.MAX_CHUNK
            got += len(data)
        assert got == WINDOW
        assert not writing.done()
        await guest.send(frame(Type.WINDOW_UPDATE, Flag.ACK, 1, 10))
        assert len((await guest.receive())[4]) == 10
        await writing


async def test_what_was_sent_before_a_reset_can_be_read() -> None:
    async with session() as (_, guest, accepted):
        await guest.send(frame(Type.DATA, Flag.SYN | Flag.RST, 2, 4, b"last"))
        stream = await accepted.get()
        assert await stream.read() == b"last"
        with pytest.raises(Retryable, match="closed the stream"):
            await stream.read()
        with pytest.raises(Retryable, match="closed the stream"):
            await stream.write(b"more")


async def test_frames_for_streams_that_are_over_are_dropped() -> None:
    async with session() as (host, guest, _):
        stream = host.open_stream()
        await stream.write(b"x")
        stream.reset()
        await guest.send(
            frame(Type.DATA, Flag.ACK, 1, 100, bytes(100)),
            frame(Type.WINDOW_UPDATE, Flag.NONE, 1, BIG),
            frame(Type.PING, Flag.SYN, 0, 7),
        )
        for _ in range(3):
            answer = await guest.receive()
        assert answer == (Type.PING, Flag.ACK, 0, 7, b"")


async def test_a_stream_that_the_guest_never_heard_of_leaves_no_trace() -> None:
    """A call that times out while it waits for room must not speak of its stream."""
    async with session() as (host, guest, _):
        stream = host.open_stream()
        await host._write_lock.acquire()
        writing = asyncio.create_task(stream.write(b"never"))
        await asyncio.sleep(0)
        writing.cancel()
        stream.reset()
        host._write_lock.release()
        await asyncio.gather(writing, return_exceptions=True)
        other = host.open_stream()
        await other.write(b"y")
        assert await guest.receive() == (Type.DATA, Flag.SYN, 3, 1, b"y")


VIOLATIONS = {
    "another version": (b"\1" + bytes(11), "does not exist"),
    "an unknown type": (frame(4, 0, 2, 0), "does not exist"),
    "unknown flags": (frame(0, 16, 2, 0), "does not exist"),
    "data without a stream": (frame(0, 1, 0, 0), "does not exist"),
    "a ping with a stream": (frame(2, 1, 2, 0), "does not exist"),
    "a stream that never was": (frame(0, 0, 2, 0), "never was"),
    "a stream of the host's that never was": (frame(1, 0, 1, 0), "never was"),
    "a stream under the host's number": (frame(0, 1, 1, 0), "wrong number"),
    "a stream twice": (frame(0, 1, 2, 0) * 2, "wrong number"),
    "a stream under an older number": (frame(0, 1, 4, 0) + frame(0, 1, 2, 0), "wrong number"),
    "a frame beyond any window": (frame(0, 1, 2, WINDOW + 1), "longer than any window"),
    "more than the window": (
        frame(0, 1, 2, WINDOW, bytes(WINDOW)) + frame(0, 0, 2, 1, b"x"),
        "more than the window",
    ),
    "data after its half-close": (frame(0, 5, 2, 0) + frame(0, 0, 2, 1, b"x"), "more than"),
    "a window beyond 32 bits": (frame(1, 1, 2, BIG), "beyond its bounds"),
    "go away": (frame(3, 0, 0, 1), "go away"),
}


@pytest.mark.parametrize("violation", VIOLATIONS)
async def test_a_guest_that_breaks_the_protocol_loses_its_connection(violation: str) -> None:
    sent, why = VIOLATIONS[violation]
    async with session() as (host, guest, _):
        stream = None
        if violation != "a stream of the host's that never was":
            stream = host.open_stream()
        await guest.send(sent)
        async with asyncio.timeout(PATIENCE):
            reason = await host.wait_closed()
        assert why in reason
        assert await guest.reader.read() == b""
        with pytest.raises(Retryable, match="ended"):
            host.open_stream()
        if stream:
            with pytest.raises(Retryable, match="ended"):
                await stream.read()


async def test_a_guest_may_not_open_many_streams() -> None:
    async with session() as (host, guest, accepted):
        numbers = range(2, 2 + 2 * (yamux.MAX_GUEST_STREAMS + 3), 2)
        await guest.send(*(frame(Type.DATA, Flag.SYN, number, 0) for number in numbers))
        for number in numbers[-3:]:
            assert await guest.receive() == (Type.WINDOW_UPDATE, Flag.RST, number, 0, b"")
        assert accepted.qsize() == yamux.MAX_GUEST_STREAMS
        (await accepted.get()).reset()
        await guest.receive()
        await guest.send(frame(Type.DATA, Flag.SYN, 1000, 0))
        await eventually(lambda: accepted.qsize() == yamux.MAX_GUEST_STREAMS)
        assert host.open_stream()


async def test_the_host_bounds_its_own_streams() -> None:
    async with session() as (host, _, _accepted):
        streams = [host.open_stream() for _ in range(yamux.MAX_STREAMS)]
        with pytest.raises(Retryable, match="Too much"):
            host.open_stream()
        streams[0].reset()
        host.open_stream()


async def test_a_guest_that_asks_and_never_listens_is_dropped() -> None:
    """Its pings are answered into the host's memory, but only up to a bound."""
    async with session() as (host, guest, _):
        pings = frame(Type.PING, Flag.SYN, 0, 1) * 1000

        async def flood() -> None:
            while True:
                await guest.send(pings)

        flooding = asyncio.create_task(flood())
        async with asyncio.timeout(PATIENCE):
            assert await host.wait_closed() == "the agent does not read what it is sent"
        await asyncio.gather(flooding, return_exceptions=True)


async def test_a_flood_leaves_others_their_turn() -> None:
    """However many frames lie ready, the loop goes round."""
    async with session() as (host, guest, _):
        await guest.send(frame(Type.PING, Flag.ACK, 0, 1) * 5000)
        turns = 0
        last = host.open_stream()
        await last.write(b"x")
        await guest.receive()
        await guest.send(frame(Type.WINDOW_UPDATE, Flag.RST, last.number, 0))
        async with asyncio.timeout(PATIENCE):
            while not last._error:
                turns += 1
                await asyncio.sleep(0)
        assert turns >= 5000 // yamux.FRAMES_PER_TURN // 2


async def test_the_end_of_the_connection_ends_everything() -> None:
    async with session() as (host, guest, _):
        stream = host.open_stream()
        await stream.write(b"x")
        works = [
            asyncio.create_task(work)
            for work in (stream.read(), stream.write(bytes(2 * WINDOW)), host.ping(PATIENCE))
        ]
        await asyncio.sleep(0)
        guest.writer.transport.abort()
        async with asyncio.timeout(PATIENCE):
            await host.wait_closed()
        for work in works:
            with pytest.raises(Retryable) as caught:
                await work
            assert caught.value.code == "agent-gone"


frames = st.builds(
    lambda kind, flags, number, data, wrong: frame(kind, flags, number, len(data) + wrong, data),
    st.integers(0, 4),
    st.integers(0, 16),
    st.sampled_from([0, 1, 2, 3, 4, 6, 8, BIG]),
    st.binary(max_size=64),
    st.sampled_from([0, 0, 0, 1, WINDOW]),
)


async def _feed(guest: Guest, pieces: list[bytes]) -> None:
    await guest.send(*pieces)
    guest.writer.write_eof()


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.one_of(frames, st.binary(max_size=40)), max_size=30))
def test_no_bytes_of_a_guest_do_more_than_end_its_connection(pieces: list[bytes]) -> None:
    async def run() -> None:
        async with session() as (host, guest, accepted):
            first = host.open_stream()
            await first.write(b"x")
            await _feed(guest, pieces)
            async with asyncio.timeout(PATIENCE):
                assert await host.wait_closed()
            assert host._task.exception() is None
            taken: list[Stream] = [accepted.get_nowait() for _ in range(accepted.qsize())]
            assert sum(len(stream._received) for stream in [first, *taken]) <= 17 * WINDOW

    asyncio.run(run())

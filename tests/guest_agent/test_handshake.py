"""Where a conversation begins, whatever lies in the pipe before it."""

from __future__ import annotations

import asyncio
import secrets

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from guest_agent import handshake
from guest_agent.handshake import MAGIC, PREAMBLE, Kind, find_answer, preamble, shake_hands
from guest_agent.yamux import ProtocolError

from .conftest import PATIENCE
from .guests import pair, with_checksum

HOST, OTHER, AGENT = b"h" * 16, b"o" * 16, b"a" * 16


def test_a_preamble_has_the_bytes_of_the_specification() -> None:
    assert preamble(Kind.START, HOST, AGENT) == (
        b"\x89NXAG\r\n\x1a" + b"\x03\x01\x00\x00" + HOST + AGENT + bytes.fromhex("22238cbf")
    )


stale = st.lists(
    st.one_of(
        st.binary(max_size=80),
        st.sampled_from(
            [
                MAGIC,
                MAGIC[:5],
                preamble(Kind.ANSWER, OTHER, AGENT),  # for an earlier host
                preamble(Kind.OFFER, HOST),
                preamble(Kind.ANSWER, HOST, AGENT)[:-1],
                preamble(Kind.ANSWER, HOST, OTHER)[:-4] + b"bad!",
            ]
        ),
    ),
    max_size=6,
).map(b"".join)


@settings(deadline=None)
@given(stale, st.lists(st.integers(1, 50), max_size=20))
def test_finds_the_answer_behind_stale_bytes_however_they_are_cut(
    before: bytes, cuts: list[int]
) -> None:
    rest = before + preamble(Kind.ANSWER, HOST, AGENT)
    received = bytearray()
    found = None
    for cut in [*cuts, len(rest)]:
        received += rest[:cut]
        rest = rest[cut:]
        found = find_answer(received, HOST)
        if found:
            break
        assert len(received) < PREAMBLE.size, "no more is kept than could be its beginning"
    assert found == (1, AGENT)


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_finds_nothing_in_other_bytes(noise: bytes) -> None:
    assert find_answer(bytearray(noise), HOST) is None


async def test_offers_again_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "FIRST_PAUSE", 0.001)
    ends, guest = await pair()
    shaking = asyncio.create_task(shake_hands(*ends))
    offers = {await guest.reader.readexactly(PREAMBLE.size) for _ in range(3)}
    assert len(offers) == 1, "it is one offer, repeated"
    host = PREAMBLE.unpack(offers.pop())[3]
    await guest.send(preamble(Kind.ANSWER, host, AGENT))
    async with asyncio.timeout(PATIENCE):
        await shaking
        while (came := await guest.reader.readexactly(PREAMBLE.size))[8] == Kind.OFFER:
            pass
    assert came == preamble(Kind.START, host, AGENT)
    ends[1].close()
    guest.writer.close()


async def test_two_hosts_never_offer_the_same() -> None:
    offers = []
    for _ in range(2):
        ends, guest = await pair()
        shaking = asyncio.create_task(shake_hands(*ends))
        offers.append(await guest.reader.readexactly(PREAMBLE.size))
        guest.writer.close()
        with pytest.raises(ConnectionResetError):
            await shaking
        ends[1].close()
    assert offers[0] != offers[1]


async def test_does_not_pile_up_offers_for_a_guest_that_does_not_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(handshake, "FIRST_PAUSE", 0.0)
    ends, guest = await pair()
    guest.reader._transport.pause_reading()  # type: ignore[attr-defined]
    offering = asyncio.create_task(handshake._offer(ends[1], preamble(Kind.OFFER, HOST)))
    for _ in range(20_000):
        await asyncio.sleep(0)
    assert ends[1].transport.get_write_buffer_size() <= PREAMBLE.size
    offering.cancel()
    ends[1].transport.abort()
    guest.writer.transport.abort()


async def test_refuses_another_version_of_the_protocol() -> None:
    ends, guest = await pair()
    shaking = asyncio.create_task(shake_hands(*ends))
    await guest.shake_hands(version=2)
    with pytest.raises(ProtocolError, match="version 2"):
        await shaking
    ends[1].close()
    guest.writer.close()


async def test_gives_up_on_endless_noise() -> None:
    ends, guest = await pair()
    shaking = asyncio.create_task(shake_hands(*ends))
    noise = with_checksum(bytearray(secrets.token_bytes(65536)))

    async def flood() -> None:
        while True:
            await guest.send(noise)

    flooding = asyncio.create_task(flood())
    with pytest.raises(ProtocolError, match="never its preamble"):
        await shaking
    ends[1].transport.abort()
    await asyncio.gather(flooding, return_exceptions=True)

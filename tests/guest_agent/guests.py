"""A guest in the test's hands: it can say what no agent would."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from guest_agent.handshake import PREAMBLE, Kind, preamble
from guest_agent.yamux import HEADER, Flag, Session, Stream, Type

from .conftest import Ends, socket_ends

HELLO: dict[str, Any] = {
    "op": "hello",
    "protocol": 1,
    "agent_version": "1.2.3",
    "arch": "x86_64",
    "kernel": "6.18.1",
    "os": "Otter Linux",
    "init": "openrc",
    "hostname": "otter",
    "boot_id": "01234567-89ab-cdef-0123-456789abcdef",
    "image": {"image_id": "aaaaaaaaaaaac"},
    "boot": {"agent_started": 1.5, "root_mounted": None, "settled": None},
}

Frame = tuple[Type, Flag, int, int, bytes]


def frame(kind: int, flags: int, number: int, length: int, data: bytes = b"") -> bytes:
    return HEADER.pack(0, kind, flags, number, length) + data


def header_bytes(header: Any) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(4, "big") + text


def announcement(number: int, header: Any, flags: Flag = Flag.SYN | Flag.FIN) -> bytes:
    data = header_bytes(header)
    return frame(Type.DATA, flags, number, len(data), data)


class Guest:
    """The guest's end of a connection."""

    def __init__(self, ends: Ends) -> None:
        self.reader, self.writer = ends

    async def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))
        await self.writer.drain()

    async def receive(self) -> Frame:
        version, kind, flags, number, length = HEADER.unpack(
            await self.reader.readexactly(HEADER.size)
        )
        assert version == 0
        data = await self.reader.readexactly(length) if kind == Type.DATA else b""
        return Type(kind), Flag(flags), number, length, data

    async def shake_hands(self, version: int = 1) -> None:
        offer = PREAMBLE.unpack(await self.reader.readexactly(PREAMBLE.size))
        agent = b"a" * 16
        answer = bytearray(preamble(Kind.ANSWER, offer[3], agent))
        answer[9] = version
        await self.send(with_checksum(answer))
        if version == 1:
            start = again = preamble(Kind.OFFER, offer[3])
            while start == again:  # said before the answer came; every agent passes over them
                start = await self.reader.readexactly(PREAMBLE.size)
            assert start == preamble(Kind.START, offer[3], agent)


def with_checksum(body: bytearray) -> bytes:
    import zlib

    return bytes(body[:-4]) + zlib.crc32(body[:-4]).to_bytes(4, "big")


async def pair() -> tuple[Ends, Guest]:
    host, guest = socket.socketpair()
    return await socket_ends(host), Guest(await socket_ends(guest))


@asynccontextmanager
async def session() -> AsyncIterator[tuple[Session, Guest, asyncio.Queue[Stream]]]:
    """A session of the host, the guest at its other end, and the streams the guest opened."""
    accepted: asyncio.Queue[Stream] = asyncio.Queue()
    ends, guest = await pair()
    opened = Session(*ends, accepted.put_nowait)
    try:
        yield opened, guest, accepted
    finally:
        await opened.close()
        guest.writer.transport.abort()

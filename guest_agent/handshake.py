"""How host and agent agree where a conversation begins.

A virtio-serial port is a pipe that outlives both ends' connections: bytes of an earlier
conversation may lie in it. Before the first frame each side therefore looks for the other's
preamble, which names both sides' random numbers. docs/agent-protocol.md has the layout.
"""

from __future__ import annotations

import asyncio
import secrets
import struct
import zlib
from enum import IntEnum

from guest_agent.yamux import ProtocolError

PROTOCOL_VERSION = 1
MAGIC = b"\x89NXAG\r\n\x1a"
PREAMBLE = struct.Struct(">8sBBxx16s16sI")  # magic, kind, version, two nonces, CRC-32
NONCE_SIZE = 16
FIRST_PAUSE, LONGEST_PAUSE = 0.005, 1.0  # seconds between one offer and the next
GROWTH = 1.5  # of the pauses: a guest that is resumed misses the first offers, and is soon there
MAX_STALE = 4 * 1024 * 1024  # bytes of earlier conversations that may come first

_NO_NONCE = bytes(NONCE_SIZE)


class Kind(IntEnum):
    OFFER = 1
    ANSWER = 2
    START = 3


def preamble(kind: Kind, host: bytes, agent: bytes = _NO_NONCE) -> bytes:
    """The 48 bytes of a preamble."""
    body = PREAMBLE.pack(MAGIC, kind, PROTOCOL_VERSION, host, agent, 0)[:-4]
    return body + struct.pack(">I", zlib.crc32(body))


def find_answer(received: bytearray, host: bytes) -> tuple[int, bytes] | None:
    """The version and the nonce of the agent's answer to the offer ``host``, if it has come.

    Everything that cannot be part of it is cut off ``received``.
    """
    while (at := received.find(MAGIC)) >= 0 and len(received) - at >= PREAMBLE.size:
        candidate = bytes(received[at : at + PREAMBLE.size])
        _, kind, version, for_host, agent, checksum = PREAMBLE.unpack(candidate)
        if kind == Kind.ANSWER and for_host == host and checksum == zlib.crc32(candidate[:-4]):
            return version, agent
        del received[: at + 1]
    keep = at if at >= 0 else max(0, len(received) - len(MAGIC) + 1)
    del received[:keep]
    return None


async def shake_hands(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Offer until the agent answers, then start the session. Waits for ever; the caller bounds it.

    Offers are repeated because one is lost when an agent, still busy with an earlier host,
    notices the change only by it. ``ProtocolError`` when what comes is no agent's.
    """
    host = secrets.token_bytes(NONCE_SIZE)
    offers = asyncio.create_task(_offer(writer, preamble(Kind.OFFER, host)))
    try:
        version, agent = await _await_answer(reader, host)
    finally:
        offers.cancel()
        await asyncio.gather(offers, return_exceptions=True)
    if version != PROTOCOL_VERSION:
        raise ProtocolError(
            f"it speaks version {version} of the protocol, Nexus {PROTOCOL_VERSION}"
        )
    writer.write(preamble(Kind.START, host, agent))


async def _await_answer(reader: asyncio.StreamReader, host: bytes) -> tuple[int, bytes]:
    received = bytearray()
    total = 0
    while (answer := find_answer(received, host)) is None:
        piece = await reader.read(64 * 1024)
        total += len(piece)
        if not piece:
            raise ConnectionResetError("the other end closed it")
        if total > MAX_STALE:
            raise ProtocolError("it sends, but never its preamble")
        received += piece
    return answer


async def _offer(writer: asyncio.StreamWriter, offer: bytes) -> None:
    """Write the offer again and again, never more than the transport takes at once."""
    pause = FIRST_PAUSE
    while True:
        if writer.transport.get_write_buffer_size() == 0:
            writer.write(offer)
        await asyncio.sleep(pause)
        pause = min(GROWTH * pause, LONGEST_PAUSE)

"""The agent gateway: other processes of this host reach the agents that the supervisor holds.

The supervisor listens on ``run/agents.sock`` (0600). A client asks for one stream to the agent
of one VM with a header, four bytes of length and JSON: ``{"vm": ID, "header": {"op": …}}``. Then
data goes both ways in frames: four bytes of length, then so many bytes. A frame of length 0 is
the half-close. What ends without one was reset: unlike a bare relay, both ends know a client
that has left from one that has said all. ``PROBLEM`` in place of a length is the last thing that a
client reads, with a header that says why there is no stream, or no more.

Each stream has the windows of its agent's connection and nothing else: whoever does not read
stops its own stream.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from guest_agent import transports
from guest_agent.connection import AgentConnection
from guest_agent.headers import MAX_HEADER, decode_header, encode_header
from guest_agent.yamux import ProtocolError, Stream
from nexus_site.core.errors import Invalid, NexusError, Retryable, as_nexus_error

log = logging.getLogger(__name__)

SOCKET = "agents.sock"  # in the run directory
LENGTH = 4  # bytes
PROBLEM = 0xFFFFFFFF
MAX_FRAME = 256 * 1024
PIECE = 64 * 1024  # bytes read at once
OPENING_TIMEOUT = 10.0  # seconds a client has for its header
MAX_REQUEST = MAX_HEADER + 1024
MAX_STREAMS = 1024
MAX_STREAMS_OF_VM = 128  # a connection carries 256: the supervisor's own calls find room

HOLDS = frozenset({"exec", "connect"})  # use a VM until its guest has said all
LOOKS = frozenset({"sessions"})  # are only looking, and no use of a VM

AgentOf = Callable[[str], Awaitable[AgentConnection]]


class Gateway:
    """Relays streams. ``agent_of`` finds an agent by its VM's ID, or raises a ``NexusError``."""

    def __init__(self, agent_of: AgentOf) -> None:
        self._agent_of = agent_of
        self._streams: Counter[str] = Counter()
        self._held: Counter[str] = Counter()
        self._used_at: dict[str, float] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None

    async def open(self, path: Path) -> None:
        """Listen on ``path`` until ``close``."""
        self._server = await transports.listen(path, self._accept)

    async def close(self) -> None:
        """End all streams; their clients are told nothing but the end."""
        if self._server is not None:
            self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def quiet_seconds(self, vm: str) -> float:
        """Since somebody used the agent of this VM: 0 while a program runs for somebody or a
        connection to a port is open, infinity where nobody has."""
        if self._held[vm]:
            return 0.0
        return time.monotonic() - self._used_at.get(vm, -math.inf)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._serve(reader, writer), name="agent gateway")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._relay_one(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client has left
        except Exception as error:
            if not isinstance(error, NexusError):
                log.exception("the agent gateway failed")
            await _say(writer, as_nexus_error(error))
        finally:
            writer.transport.abort()

    async def _relay_one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        vm, header = await self._read_request(reader)
        if len(self._tasks) > MAX_STREAMS or self._streams[vm] >= MAX_STREAMS_OF_VM:
            raise Retryable("Too much is going on with this VM's agent.", code="agent-busy")
        use = _Use(vm, str(header.get("op")), self._held, self._used_at)
        self._streams[vm] += 1
        try:
            agent = await self._agent_of(vm)
            stream = await agent.open_stream(header)
            try:
                await _relay(reader, writer, stream, use)
            finally:
                stream.reset()
        finally:
            use.end()
            self._streams[vm] -= 1
            if not self._streams[vm]:
                del self._streams[vm]

    async def _read_request(self, reader: asyncio.StreamReader) -> tuple[str, dict[str, Any]]:
        try:
            async with asyncio.timeout(OPENING_TIMEOUT):
                length = int.from_bytes(await reader.readexactly(LENGTH))
                if length > MAX_REQUEST:
                    raise _no_request()
                request = decode_header(await reader.readexactly(length))
        except (ProtocolError, TimeoutError):
            raise _no_request() from None
        vm, header = request.get("vm"), request.get("header")
        if not isinstance(vm, str) or not isinstance(header, dict):
            raise _no_request()
        return vm, header


class _Use:
    """What one stream, for the operation ``op``, is to the use of a VM."""

    def __init__(self, vm: str, op: str, held: Counter[str], used_at: dict[str, float]) -> None:
        self._vm, self._looks, self._holds = vm, op in LOOKS, op in HOLDS
        self._held, self._used_at = held, used_at
        if self._holds:
            held[vm] += 1
        self.touch()

    def touch(self) -> None:
        """Bytes have come or gone."""
        if not self._looks:
            self._used_at[self._vm] = time.monotonic()

    def end(self) -> None:
        """The guest has said all, or the stream is over; what it holds is held no more."""
        if self._holds:
            self._holds = False
            self._held[self._vm] -= 1
            if not self._held[self._vm]:
                del self._held[self._vm]
            self.touch()


def _no_request() -> Invalid:
    return Invalid("This is no request for an agent.", code="bad-request")


async def _relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: Stream, use: _Use
) -> None:
    """Carry bytes both ways until the client hangs up, which it does last, or one is lost."""
    both = [
        asyncio.create_task(_to_guest(reader, stream, use)),
        asyncio.create_task(_to_client(stream, writer, use)),
    ]
    try:
        await asyncio.gather(*both)
    finally:
        for task in both:
            task.cancel()
        await asyncio.gather(*both, return_exceptions=True)


async def _to_guest(reader: asyncio.StreamReader, stream: Stream, use: _Use) -> None:
    while length := int.from_bytes(await reader.readexactly(LENGTH)):
        if length > MAX_FRAME:
            raise Invalid("A frame is too long.", code="bad-request")
        while length:
            data = await reader.read(min(length, PIECE))
            if not data:
                raise ConnectionResetError
            length -= len(data)
            use.touch()
            await stream.write(data)
    stream.write_eof()
    if await reader.read(1):
        raise Invalid("More came after the half-close.", code="bad-request")
    raise ConnectionResetError  # the client has left, whatever else the guest may want to say


async def _to_client(stream: Stream, writer: asyncio.StreamWriter, use: _Use) -> None:
    while data := await stream.read(PIECE):
        use.touch()
        writer.write(len(data).to_bytes(LENGTH) + data)
        await writer.drain()
    use.end()
    writer.write(bytes(LENGTH))
    await writer.drain()


async def _say(writer: asyncio.StreamWriter, error: NexusError) -> None:
    """Tell the client why, if it reads."""
    record = error.record() | {"detail": ""}
    writer.write(PROBLEM.to_bytes(LENGTH) + encode_header(record))
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(OPENING_TIMEOUT):
            writer.close()
            await writer.wait_closed()

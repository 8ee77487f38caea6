"""A VM's agent for every process but the worker: streams through the agent gateway."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

from django.conf import settings

from guest_agent import replies, transports
from guest_agent.calls import AgentCalls
from guest_agent.headers import decode_header, encode_header
from guest_agent.yamux import WINDOW, ProtocolError
from nexus_site.core.errors import Broken, Invalid, Retryable, from_record
from vms.gateway import LENGTH, MAX_REQUEST, PIECE, PROBLEM, SOCKET
from vms.models import VM
from vms.states import State

WAKING = frozenset({State.STARTING, State.RUNNING})
LOOK = 0.03  # seconds between two looks at whether a VM is ready


class GatewayStream:
    """A ``guest_agent.streams.ByteStream`` over the gateway. Made by ``GatewayAgent``."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._left = 0  # bytes of the frame that is being read
        self._ended = self._finished_writing = False
        self._error: Retryable | None = None

    async def read(self, limit: int = WINDOW) -> bytes:
        if self._error:
            raise self._error
        if self._ended:
            return b""
        try:
            if not self._left and not await self._next_frame():
                return b""
            data = await self._reader.read(min(limit, self._left))
        except (OSError, asyncio.IncompleteReadError):
            data = b""
        if not data:
            raise self._fail(_cut())
        self._left -= len(data)
        return data

    async def read_exactly(self, count: int) -> bytes:
        data = bytearray()
        while len(data) < count:
            piece = await self.read(count - len(data))
            if not piece:
                raise Retryable("The VM's agent ended its answer too early.", code="agent-short")
            data += piece
        return bytes(data)

    async def write(self, data: bytes | memoryview) -> None:
        rest = memoryview(data)
        while rest:
            if self._error:
                raise self._error
            piece, rest = rest[:PIECE], rest[PIECE:]
            self._writer.write(len(piece).to_bytes(LENGTH) + piece)
            try:
                await self._writer.drain()
            except OSError:
                # The gateway may have said why before it hung up: whoever reads finds that.
                raise self._error or _cut() from None

    def write_eof(self) -> None:
        if not self._finished_writing and not self._error:
            self._finished_writing = True
            self._writer.write(bytes(LENGTH))

    def reset(self) -> None:
        if not self._error:
            self._error = Retryable("The stream to the VM's agent was closed.", code="agent-reset")
        if self._ended and self._finished_writing:
            self._writer.transport.close()  # what was written is still on its way
        else:
            self._writer.transport.abort()

    async def _next_frame(self) -> bool:
        """Begin the next frame; False for the half-close. Raises what the gateway says."""
        self._left = int.from_bytes(await self._reader.readexactly(LENGTH))
        if self._left == PROBLEM:
            length = int.from_bytes(await self._reader.readexactly(LENGTH))
            error = from_record(decode_header(await self._reader.readexactly(length)))
            if isinstance(error, Retryable):
                self._fail(error)
            raise error
        self._ended = not self._left
        return not self._ended

    def _fail(self, error: Retryable) -> Retryable:
        self._error = self._error or error
        self._writer.transport.abort()
        return self._error


class GatewayAgent(AgentCalls[GatewayStream]):
    """The agent of one VM, which some other process holds. Needs no closing.

    Why there is no agent is known only when an answer is read: every call raises it then.
    """

    def __init__(self, vm: VM) -> None:
        self._ref, self._vm = vm.ref, vm

    async def open_stream(self, header: dict[str, Any]) -> GatewayStream:
        """See ``AgentCalls``; ``Retryable`` where the worker is down. Waits for a VM that wakes."""
        if self._vm.state in WAKING:
            await _until_ready(self._vm)
        try:
            request = encode_header({"vm": self._ref, "header": header}, MAX_REQUEST)
        except ValueError as error:
            raise Invalid(f"This is too much for the VM's agent: {error}.") from error
        try:
            reader, writer = await transports.connect(_socket())
        except OSError:
            raise Retryable(
                "The worker, which holds the VMs' agents, does not run.",
                hint="It is started again at once; else its log says why: run/nexusd.log in the "
                "data directory.",
                code="worker-down",
            ) from None
        writer.write(request)
        return GatewayStream(reader, writer)

    def _end_for(self, error: ProtocolError) -> Broken:
        return replies.broken(error)


async def _until_ready(vm: VM) -> None:
    """Until a VM that was suspended, and wakes, is ready; ``Retryable`` where it is not in time."""
    deadline = time.monotonic() + settings.NEXUS.agent_ready_timeout
    while vm.state in WAKING and time.monotonic() < deadline:
        await asyncio.sleep(LOOK)
        await vm.arefresh_from_db(fields=["state"])
    if vm.state != State.READY:
        raise Retryable(
            f"The VM “{vm.name}” was to wake, and is {vm.state}.",
            hint=f"See what happened: nexusctl vm history {vm.name}",
            code="vm-not-ready",
        )


def _socket() -> Path:
    return Path(settings.NEXUS.run_dir) / SOCKET


def _cut() -> Retryable:
    return Retryable(
        "The connection to the VM's agent ended: the worker was restarted or has died.",
        hint="What ran has been ended; run it again.",
        code="agent-gone",
    )

"""Agents in this process: real sessions, and what they do is the test's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from guest_agent.chunks import CHUNK, Kind
from guest_agent.connection import AgentConnection
from guest_agent.headers import encode_header, read_header
from guest_agent.yamux import Flag, Session, Stream
from nexus_site.core.errors import Conflict, Retryable
from tests.guest_agent.guests import HELLO, Guest, announcement, pair
from vms.gateway import Gateway
from vms.models import VM

PATIENCE = 60.0
OnStream = Callable[[Stream], Awaitable[None]]


class FakeAgent:
    """The guest's end of one connection: a yamux session in the guest's role."""

    def __init__(self, guest: Guest, on_stream: OnStream) -> None:
        self.guest, self.on_stream = guest, on_stream
        self.tasks: list[asyncio.Task[None]] = []
        self.session: Session | None = None

    async def run(self) -> None:
        await self.guest.shake_hands()
        await self.guest.send(announcement(2, HELLO))
        self.session = GuestSession(self.guest.reader, self.guest.writer, self._accept)

    def _accept(self, stream: Stream) -> None:
        self.tasks.append(asyncio.create_task(self._serve(stream)))

    async def _serve(self, stream: Stream) -> None:
        with contextlib.suppress(Retryable):  # the host has left
            await self.on_stream(stream)

    async def close(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        if self.session:
            await self.session.close()


class GuestSession(Session):
    """The other role: odd numbers are the other end's."""

    def _find(self, number: int, flags: Flag) -> Stream | None:
        if flags & Flag.SYN and number % 2:
            stream = self._streams[number] = Stream(self, number, Flag.ACK)
            self._accept(stream)
            return stream
        return self._streams.get(number)


class World:
    """A gateway with the agents of some VMs behind it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.agents: dict[str, AgentConnection] = {}
        self.fakes: list[FakeAgent] = []
        self.gateway = Gateway(self.agent_of)

    async def agent_of(self, ref: str) -> AgentConnection:
        if ref not in self.agents:
            raise Conflict("The VM “gone” is stopped.", code="vm-not-ready")
        return self.agents[ref]

    async def add(self, vm: VM, on_stream: OnStream) -> AgentConnection:
        ends, guest = await pair()
        fake = FakeAgent(guest, on_stream)
        self.fakes.append(fake)
        running = asyncio.create_task(fake.run())
        agent = await AgentConnection.open(*ends, hello_timeout=PATIENCE)
        await running
        self.agents[vm.ref] = agent
        return agent

    async def close(self) -> None:
        await self.gateway.close()
        for agent in self.agents.values():
            await agent.close()
        for fake in self.fakes:
            await fake.close()


async def begin(stream: Stream) -> dict[str, Any]:
    """Take the request for a program and say that it runs."""
    header = await read_header(stream)
    await stream.write(encode_header({"ok": True, "pid": 77}))
    return header


async def say(stream: Stream, kind: Kind, data: bytes) -> None:
    await stream.write(CHUNK.pack(kind, len(data)) + data)


async def end(stream: Stream, **exit_: int) -> None:
    await say(stream, Kind.EXIT, json.dumps(exit_).encode())
    stream.write_eof()


async def take(stream: Stream) -> tuple[Kind, bytes]:
    """The host's next chunk."""
    kind, length = CHUNK.unpack(await stream.read_exactly(CHUNK.size))
    return Kind(kind), await stream.read_exactly(length) if length else b""

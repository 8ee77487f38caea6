"""A TCP port of a VM over a websocket: bytes both ways, each direction with its own end.

``/ws/vms/<ref>/ports/<port>``; docs/reference/api.md has the messages.
"""

from __future__ import annotations

import asyncio

from guest_agent.ports import Connection
from nexus_site.core.errors import Retryable
from vms import services
from vms.stream_socket import StreamConsumer

PIECE = 64 * 1024  # bytes


class PortConsumer(StreamConsumer[Connection]):
    """One connection for each socket; a socket that closes before both have said all resets it."""

    def prepare(self) -> None:
        self._fed = asyncio.Event()
        self._refusal: Retryable | None = None  # why the rest of the input was not taken

    async def open(self, ref: str) -> Connection:
        vm = await services.reach_vm(ref)
        return await services.connect_to_port(vm, self.scope["url_route"]["kwargs"]["port"])

    async def announce(self, inside: Connection) -> None:
        await self.tell("connected")

    async def pass_output(self, inside: Connection) -> None:
        while data := await inside.read(PIECE):
            await self.send(bytes_data=data)
        await self.tell("eof")
        await self._fed.wait()
        if self._refusal:
            raise self._refusal

    async def feed(self, inside: Connection) -> None:
        try:
            await self.pass_input(inside)
        except Retryable as error:
            self._refusal = error  # what the program had said before comes first
        self._fed.set()

"""What is asked of an agent the same way, whoever carries the streams."""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from guest_agent import replies
from guest_agent.exec import Execution, Program
from guest_agent.headers import read_records
from guest_agent.refusals import AgentRefused, outdated, start_meaning
from guest_agent.streams import ByteStream
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Broken, NexusError

START_TIMEOUT = 30.0  # seconds for a program to begin

StreamT = TypeVar("StreamT", bound=ByteStream)


class AgentCalls(ABC, Generic[StreamT]):
    """Calls to one agent, each on a stream of its own.

    All of them raise ``Retryable`` when the agent is gone (code ``agent-gone``) or too slow
    (``agent-timeout``), and ``Broken`` when it refuses (``AgentRefused``) or breaks the protocol
    (``agent-protocol``).
    """

    @abstractmethod
    async def open_stream(self, header: dict[str, Any]) -> StreamT:
        """A stream for an operation that goes on after its header. The caller reads the answer
        with ``read_reply`` and must ``reset`` the stream when done with it."""

    @abstractmethod
    def _end_for(self, error: ProtocolError) -> Broken:
        """The guest broke the protocol: the error to raise for it."""

    async def start(self, program: Program, timeout: float = START_TIMEOUT) -> Execution:
        """Start a program in the guest; ``close`` what this returns.

        Raises ``Invalid`` (code ``cannot-run``) for a program, directory or user that the guest
        does not have, and ``Retryable`` (``agent-busy``) when too many run.
        """
        try:
            stream, reply = await self.ask(program.header(), timeout)
        except AgentRefused as error:
            raise start_meaning(error) from error
        try:
            with self.checking():
                pid = replies.pid_of(reply)
            if program.tty and reply.get("tty") is not True:
                raise outdated()
        except NexusError:
            stream.reset()
            raise
        return Execution(stream, pid, tty=program.tty is not None)

    async def read_reply(self, stream: ByteStream) -> dict[str, Any]:
        """The header of the agent's answer; ``Broken`` when it refuses."""
        with self.checking():
            return await replies.read_reply(stream)

    async def ask(self, header: dict[str, Any], timeout: float) -> tuple[StreamT, dict[str, Any]]:
        """The agent's answer, and the stream that goes on. The caller must ``reset`` it."""
        try:
            async with asyncio.timeout(timeout):
                stream = await self.open_stream(header)
                try:
                    return stream, await self.read_reply(stream)
                except BaseException:
                    stream.reset()
                    raise
        except TimeoutError:
            raise replies.too_slow(f"did not answer “{header['op']}”", timeout) from None

    async def exchange(
        self, header: dict[str, Any], timeout: float, data: bytes = b""
    ) -> dict[str, Any]:
        """The agent's answer to a header and the bytes after it."""
        return (await self.records(header, 0, timeout, data))[0]

    async def records(
        self, header: dict[str, Any], most: int, timeout: float, data: bytes = b""
    ) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """The same, and the objects that follow the answer, at most so many."""
        try:
            async with asyncio.timeout(timeout):
                stream = await self.open_stream(header)
                try:
                    if data:
                        await stream.write(data)
                    stream.write_eof()
                    reply = await self.read_reply(stream)
                    with self.checking():
                        return reply, await read_records(stream, most) if most else []
                finally:
                    stream.reset()
        except TimeoutError:
            raise replies.too_slow(f"did not answer “{header['op']}”", timeout) from None

    @contextmanager
    def checking(self) -> Iterator[None]:
        """What the guest said is looked at: where it breaks the protocol its connection ends."""
        try:
            yield
        except ProtocolError as error:
            raise self._end_for(error) from error

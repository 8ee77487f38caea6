"""TCP ports of the guest: a connection to a program that listens there."""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

from typing import Any

from guest_agent.calls import AgentCalls
from guest_agent.refusals import AgentRefused, meaning
from guest_agent.streams import ByteStream
from nexus_site.core.errors import Conflict, Invalid, NexusError, Retryable

MAX_PORT = 65535
CONNECT_TIMEOUT = 30.0  # seconds; the agent itself gives a program 10


class Connection:
    """A TCP connection inside the guest; ``connect`` makes one.

    One task may read and another write. Each direction ends by itself. All raise ``Retryable``
    when the guest is lost, and with the code ``port-reset`` when the program breaks it off.
    """

    def __init__(self, stream: ByteStream, port: int) -> None:
        self.port = port
        self._stream = stream
        self._said_all = False  # the program has

    async def read(self, limit: int) -> bytes:
        """Up to ``limit`` bytes as soon as there are any; ``b""`` after the program's last."""
        try:
            data = await self._stream.read(limit)
        except Retryable as error:
            raise self._explained(error) from error
        self._said_all = not data
        return data

    async def write(self, data: bytes) -> None:
        """Send all of ``data``, waiting until there is room for it."""
        try:
            await self._stream.write(data)
        except Retryable as error:
            raise self._explained(error) from error

    async def write_eof(self) -> None:
        """The half-close: the program reads end of file after what was written."""
        self._stream.write_eof()

    def close(self) -> None:
        """Be done with it. Where a direction has not ended the program's is reset."""
        self._stream.reset()

    def _explained(self, error: Retryable) -> Retryable:
        # After its last byte nobody reads, so nobody is told why it takes no more.
        if error.code != "agent-reset" and not self._said_all:
            return error
        return Retryable(
            f"The program at port {self.port} of the VM broke the connection off.",
            code="port-reset",
        )


async def connect(
    agent: AgentCalls[Any], port: int, timeout: float = CONNECT_TIMEOUT
) -> Connection:
    """A connection to the guest's own ``localhost:port``; ``close`` what this returns.

    Raises what ``AgentCalls`` do; ``Invalid`` (``bad-port``) for what is no port, ``Conflict``
    where nobody listens (``port-refused``) or the agent knows no ports (``agent-outdated``), and
    ``Retryable`` (``agent-busy``) when too many are open.
    """
    if not 1 <= port <= MAX_PORT:
        raise Invalid(f"There is no port {port}: they are 1 to {MAX_PORT}.", code="bad-port")
    try:
        stream, _ = await agent.ask({"op": "connect", "port": port}, timeout)
    except AgentRefused as refused:
        raise _meaning(refused, port) from refused
    return Connection(stream, port)


def _meaning(refused: AgentRefused, port: int) -> NexusError:
    match refused.reason:
        case "refused":
            return Conflict(
                f"Nothing in the VM takes connections on port {port}.",
                hint="A program must listen there, on localhost or on all addresses: 127.0.0.1, "
                "0.0.0.0 or ::.",
                code="port-refused",
            )
        case "bad-port":
            return Invalid(refused.text, code="bad-port")
    return meaning(refused)

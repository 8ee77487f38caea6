"""What an operation of the agent needs of a stream, whoever carries it."""

from __future__ import annotations

from typing import Protocol


class ByteStream(Protocol):
    """Bytes both ways, with a half-close and a reset.

    ``guest_agent.yamux.Stream`` is one in the process that holds the connection,
    ``vms.agents.GatewayStream`` in every other one. All raise ``Retryable`` when the stream or
    what carries it has ended.
    """

    async def read(self, limit: int = ...) -> bytes:
        """Up to ``limit`` bytes as soon as there are any; ``b""`` after the guest's half-close."""

    async def read_exactly(self, count: int) -> bytes:
        """``count`` bytes; ``Retryable`` if the guest finishes before."""

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of ``data``, waiting until there is room for it."""

    def write_eof(self) -> None:
        """The half-close: the guest reads end of file after what was written."""

    def reset(self) -> None:
        """End the stream at once on both sides; safe to repeat."""

"""Programs in the guest: what the host asks for, and the chunks that one stream then carries.

Every byte that comes in is a guest's: chunks are bounded, kinds that do not exist end the
stream, and an exit is checked before anyone believes it.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from guest_agent.headers import decode_header
from guest_agent.yamux import ProtocolError, Stream
from nexus_site.core.errors import Broken, Invalid

CHUNK = struct.Struct(">BI")  # kind, length
MAX_CHUNK = 256 * 1024
MAX_EXIT = 1024
INPUT_WINDOW = 64 * 1024  # bytes of input that may be on their way to the program
INPUT_CHUNK = 32 * 1024
MAX_SIGNAL = 64
CHUNKS_PER_TURN = 64  # chunks read before other programs and VMs get their turn


class Kind(IntEnum):
    """The kinds of chunks; the guest sends the odd ones and ``STDERR``."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    SIGNAL = 4
    WINDOW = 5


_OUTPUTS = (Kind.STDOUT, Kind.STDERR)


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """How a program ended: with a ``code``, or by a ``signal``; the other one is None.

    ``timed_out`` tells that the agent ended it because its time was over.
    """

    code: int | None = None
    signal: int | None = None
    timed_out: bool = False

    @property
    def shell_code(self) -> int:
        """One number for both, as shells have it: 128 + N for signal N."""
        return self.code if self.code is not None else 128 + (self.signal or 0)

    @classmethod
    def parse(cls, data: bytes) -> ExitStatus:
        """The checked exit; ``ProtocolError`` for one that cannot be."""
        fields = decode_header(data)
        code, signal = fields.get("code"), fields.get("signal")
        timed_out = fields.get("timed_out") is True
        if type(code) is int and 0 <= code <= 255 and signal is None:
            return cls(code=code, timed_out=timed_out)
        if type(signal) is int and 1 <= signal <= MAX_SIGNAL and code is None:
            return cls(signal=signal, timed_out=timed_out)
        raise ProtocolError("it told an exit that cannot be")


@dataclass(frozen=True, slots=True)
class Program:
    """What to run: ``argv`` as it is, without a shell.

    ``env`` is added to the agent's defaults (PATH, HOME, LANG, USER, LOGNAME). ``user`` is a
    name or number, with ``:group`` if wanted; "" is the agent's own, root. ``timeout`` in
    seconds is kept by the guest: the program is killed then. ``stdin`` opens its input, which
    is empty otherwise. ``merge`` puts stderr into stdout, in the order of writing.
    """

    argv: Sequence[str]
    env: Mapping[str, str] | None = None
    cwd: str = "/"
    user: str = ""
    timeout: float | None = None
    stdin: bool = False
    merge: bool = False

    def __post_init__(self) -> None:
        if not self.argv or not self.argv[0]:
            raise Invalid("There is no program to run.", code="bad-program")
        if any("\0" in text for text in (*self.argv, *(self.env or {}).values(), self.cwd)):
            raise Invalid("A program cannot be given a null character.", code="bad-program")
        for name in self.env or {}:
            if not name or "=" in name or "\0" in name:
                raise Invalid(f"“{name}” cannot be an environment variable.", code="bad-variable")
        if not self.cwd.startswith("/"):
            raise Invalid("A program's directory must be an absolute path.", code="bad-program")

    def header(self) -> dict[str, Any]:
        """The header of the stream that asks for it."""
        return {
            "op": "exec",
            "argv": list(self.argv),
            "env": dict(self.env or {}),
            "cwd": self.cwd,
            "user": self.user,
            "timeout": self.timeout,
            "stdin": self.stdin,
            "merge": self.merge,
        }


class Execution:
    """A program that runs in the guest; ``AgentConnection.start`` makes one.

    One task reads; others may write and signal meanwhile. Writing waits until the program takes
    its input, which only a task that reads gets to know. ``close`` ends what still runs.
    """

    def __init__(self, stream: Stream, pid: int) -> None:
        self.pid = pid
        self.exit: ExitStatus | None = None
        self._stream = stream
        self._chunks = 0
        self._window = INPUT_WINDOW
        self._widened = asyncio.Event()
        self._closed = False
        self._writing = asyncio.Lock()  # a chunk is not to be torn by another one

    async def read(self) -> tuple[int, bytes] | None:
        """The next output, (1 for stdout or 2 for stderr, bytes); None after the last one.

        ``exit`` is set then. Raises ``Retryable`` when the guest is lost and ``Broken`` when it
        breaks the protocol.
        """
        try:
            while self.exit is None:
                self._chunks += 1
                if self._chunks % CHUNKS_PER_TURN == 0:
                    await asyncio.sleep(0)
                kind, data = await self._read_chunk()
                if kind in _OUTPUTS:
                    return int(kind), data
                self._note(kind, data)
        except ProtocolError as error:
            self.close()
            raise Broken(
                f"The VM's agent broke the protocol: {error}.", code="agent-protocol"
            ) from error
        return None

    async def write(self, data: bytes) -> None:
        """Give the program input; returns when all of it is on its way."""
        rest = memoryview(data)
        while rest:
            while not (self._window or self._over):
                self._widened.clear()
                await self._widened.wait()
            if self._over:
                return
            piece = rest[: min(self._window, INPUT_CHUNK)]
            self._window -= len(piece)
            rest = rest[len(piece) :]
            await self._send(Kind.STDIN, bytes(piece))

    async def write_eof(self) -> None:
        """The end of the program's input. At most once."""
        await self._send(Kind.STDIN, b"")

    async def signal(self, number: int) -> None:
        """Send a signal to the program and to all of its process group."""
        if not 1 <= number <= MAX_SIGNAL:
            raise Invalid(f"There is no signal {number}.", code="bad-signal")
        await self._send(Kind.SIGNAL, bytes([number]))

    def close(self) -> None:
        """Be done with it: the process group is killed if the program has not ended."""
        if self.exit is not None:
            self._stream.write_eof()
        self._stream.reset()
        self._closed = True
        self._widened.set()

    @property
    def _over(self) -> bool:
        """Nobody takes input any more."""
        return self._closed or self.exit is not None

    async def _read_chunk(self) -> tuple[Kind, bytes]:
        kind, length = CHUNK.unpack(await self._stream.read_exactly(CHUNK.size))
        if kind not in (*_OUTPUTS, Kind.EXIT, Kind.WINDOW):
            raise ProtocolError(f"it sent a chunk of the kind {kind}")
        if not 0 < length <= (MAX_CHUNK if kind in _OUTPUTS else MAX_EXIT):
            raise ProtocolError(f"it sent a chunk of {length} bytes")
        return Kind(kind), await self._stream.read_exactly(length)

    def _note(self, kind: Kind, data: bytes) -> None:
        if kind is Kind.EXIT:
            self.exit = ExitStatus.parse(data)
        elif len(data) != 4 or not 0 < int.from_bytes(data) <= INPUT_WINDOW - self._window:
            raise ProtocolError("it opened a window beyond its bounds")
        else:
            self._window += int.from_bytes(data)
        self._widened.set()

    async def _send(self, kind: Kind, data: bytes) -> None:
        async with self._writing:
            if not self._over:
                await self._stream.write(CHUNK.pack(kind, len(data)) + data)

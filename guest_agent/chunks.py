"""The chunks that one stream carries for a program and about it.

Every byte that comes in is a guest's: chunks are bounded, kinds that do not exist end the
stream, and an exit is checked before anyone believes it.
"""

from __future__ import annotations

import asyncio
import struct
from dataclasses import dataclass
from enum import IntEnum

from guest_agent.headers import decode_header
from guest_agent.streams import ByteStream
from guest_agent.yamux import ProtocolError
from nexus_site.core.errors import Broken, Invalid

CHUNK = struct.Struct(">BI")  # kind, length
SIZE = struct.Struct(">HH")  # rows, columns
MAX_CHUNK = 256 * 1024
MAX_NOTE = 1024  # bytes of a chunk that is no output
INPUT_WINDOW = 64 * 1024  # bytes of input that may be on their way to the program
INPUT_CHUNK = 32 * 1024
MAX_SIGNAL = 64
MAX_SIDE = 4096  # rows or columns of a terminal
CHUNKS_PER_TURN = 64  # chunks read before other programs and VMs get their turn


class Kind(IntEnum):
    """The kinds of chunks; the guest sends the outputs, exits, windows and gaps."""

    STDIN = 0
    STDOUT = 1
    STDERR = 2
    EXIT = 3
    SIGNAL = 4
    WINDOW = 5
    RESIZE = 6
    GAP = 7


OUTPUTS = (Kind.STDOUT, Kind.STDERR)


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
        return cls.of(decode_header(data))

    @classmethod
    def of(cls, fields: object) -> ExitStatus:
        """The same of an object that has been decoded."""
        if not isinstance(fields, dict):
            raise ProtocolError("it told an exit that is no object")
        code, signal = fields.get("code"), fields.get("signal")
        timed_out = fields.get("timed_out") is True
        if type(code) is int and 0 <= code <= 255 and signal is None:
            return cls(code=code, timed_out=timed_out)
        if type(signal) is int and 1 <= signal <= MAX_SIGNAL and code is None:
            return cls(signal=signal, timed_out=timed_out)
        raise ProtocolError("it told an exit that cannot be")


class Channel:
    """The host's end of a stream of chunks. One task reads; others may write and signal meanwhile.

    Writing waits until the program takes its input, which only a task that reads gets to know.
    """

    guest_kinds: tuple[Kind, ...] = (*OUTPUTS, Kind.EXIT, Kind.WINDOW)

    def __init__(self, stream: ByteStream, pid: int, *, tty: bool = False) -> None:
        self.pid = pid
        self.tty = tty
        self.exit: ExitStatus | None = None
        self._stream = stream
        self._chunks = 0
        self._window = INPUT_WINDOW
        self._widened = asyncio.Event()
        self._closed = False
        self._writing = asyncio.Lock()  # a chunk is not to be torn by another one

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

    async def drain(self) -> None:
        """Wait until the program has taken all input, or nobody takes any more."""
        while self._window < INPUT_WINDOW and not self._over:
            self._widened.clear()
            await self._widened.wait()

    async def write_eof(self) -> None:
        """The end of the program's input; on a terminal the key for it. At most once."""
        await self._send(Kind.STDIN, b"")

    async def signal(self, number: int) -> None:
        """Send a signal to the program, its process group, and its terminal's foreground."""
        await self._send(Kind.SIGNAL, bytes([check_signal(number)]))

    async def resize(self, rows: int, cols: int) -> None:
        """Give the program's terminal a new size; nothing happens where it has none."""
        if not (0 <= rows <= MAX_SIDE and 0 <= cols <= MAX_SIDE):
            raise Invalid("A terminal cannot have this size.", code="bad-terminal")
        if self.tty:
            await self._send(Kind.RESIZE, SIZE.pack(rows, cols))

    def close(self) -> None:
        """Be done with the stream."""
        if self.exit is not None:
            self._stream.write_eof()
        self._stream.reset()
        self._closed = True
        self._widened.set()

    async def _next_output(self) -> tuple[int, bytes] | None:
        """The next output; None after the last one, with ``exit`` set.

        ``Broken``, and the stream's end, when the guest breaks the protocol.
        """
        try:
            while self.exit is None:
                self._chunks += 1
                if self._chunks % CHUNKS_PER_TURN == 0:
                    await asyncio.sleep(0)
                kind, data = await self._read_chunk()
                if kind in OUTPUTS:
                    return int(kind), data
                self._note(kind, data)
        except ProtocolError as error:
            self.close()
            raise Broken(
                f"The VM's agent broke the protocol: {error}.", code="agent-protocol"
            ) from error
        return None

    @property
    def _over(self) -> bool:
        """Nobody takes input any more."""
        return self._closed or self.exit is not None

    async def _read_chunk(self) -> tuple[Kind, bytes]:
        kind, length = CHUNK.unpack(await self._stream.read_exactly(CHUNK.size))
        if kind not in self.guest_kinds:
            raise ProtocolError(f"it sent a chunk of the kind {kind}")
        if not 0 < length <= (MAX_CHUNK if kind in OUTPUTS else MAX_NOTE):
            raise ProtocolError(f"it sent a chunk of {length} bytes")
        return Kind(kind), await self._stream.read_exactly(length)

    def _note(self, kind: Kind, data: bytes) -> None:
        """Take a chunk that is no output."""
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


def check_signal(number: int) -> int:
    """The number of a signal; ``Invalid`` for what is none."""
    if not 1 <= number <= MAX_SIGNAL:
        raise Invalid(f"There is no signal {number}.", code="bad-signal")
    return number

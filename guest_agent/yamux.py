"""Many streams over one connection, in the framing of the public yamux specification.

This is the host's end, and every byte that comes in is a guest's. Frame lengths, windows, the
number of streams and the bytes waiting to leave are bounded; a guest that breaks a rule loses its
own connection, with a reason, and nothing else. What callers see are the errors of
``nexus_site.core.errors``: ``Retryable`` when the connection or the stream has ended.
"""

# ruff: noqa: ASYNC109 - a time that ran out becomes an error for people here, not at each caller

from __future__ import annotations

import asyncio
import contextlib
import itertools
import struct
import time
from collections.abc import Callable
from enum import IntEnum, IntFlag

from nexus_site.core.errors import Retryable

HEADER = struct.Struct(">BBHII")  # version, type, flags, stream, length
WINDOW = 256 * 1024  # bytes a stream may hold that its reader has not taken
MAX_CHUNK = 32 * 1024  # bytes of data in one frame that the host sends
MAX_STREAMS = 256  # streams that the host may have open at once
MAX_GUEST_STREAMS = 16  # streams that the guest may have open at once
MAX_UNREAD = 1024 * 1024  # bytes waiting to leave before the guest counts as deaf
FRAMES_PER_TURN = 64  # frames handled before other connections get their turn


class Type(IntEnum):
    DATA = 0
    WINDOW_UPDATE = 1
    PING = 2
    GO_AWAY = 3


class Flag(IntFlag):
    NONE = 0
    SYN = 1
    ACK = 2
    FIN = 4
    RST = 8


class ProtocolError(Exception):
    """The guest broke the protocol; the text says how."""


def gone(reason: str) -> Retryable:
    """What callers get once the connection has ended for ``reason``."""
    return Retryable(f"The connection to the VM's agent ended: {reason}.", code="agent-gone")


class Stream:
    """One stream: reads, writes, a half-close and a reset. Made by ``Session``."""

    def __init__(self, session: Session, number: int, first_flags: Flag) -> None:
        self.number = number
        self._session = session
        self._first_flags = first_flags  # SYN or ACK, for the first frame that leaves
        self._received = bytearray()
        self._allowed = WINDOW  # bytes that the guest may still send
        self._window = WINDOW  # bytes that the host may still send
        self._finished_reading = self._finished_writing = False
        self._error: Retryable | None = None
        self._readable = asyncio.Event()
        self._writable = asyncio.Event()

    async def read(self, limit: int = WINDOW) -> bytes:
        """Up to ``limit`` bytes as soon as there are any; ``b""`` after the guest's half-close."""
        while not self._received:
            if self._error:
                raise self._error
            if self._finished_reading:
                return b""
            self._readable.clear()
            await self._readable.wait()
        data = bytes(self._received[:limit])
        del self._received[:limit]
        self._give_back()
        return data

    async def read_exactly(self, count: int) -> bytes:
        """``count`` bytes; ``Retryable`` if the guest finishes before."""
        data = bytearray()
        while len(data) < count:
            piece = await self.read(count - len(data))
            if not piece:
                raise Retryable("The VM's agent ended its answer too early.", code="agent-short")
            data += piece
        return bytes(data)

    async def write(self, data: bytes | memoryview) -> None:
        """Send all of ``data``, waiting for the guest's window and the transport."""
        rest = memoryview(data)
        while rest:
            while not self._window and not self._error:
                self._writable.clear()
                await self._writable.wait()
            if self._error:
                raise self._error
            chunk = rest[: min(self._window, MAX_CHUNK)]
            self._window -= len(chunk)
            rest = rest[len(chunk) :]
            await self._session.send_data(self, bytes(chunk))

    def write_eof(self) -> None:
        """The half-close: the guest reads end of file after what was written."""
        if self._error or self._finished_writing:
            return
        self._finished_writing = True
        self._tell(Flag.FIN)
        self._forget_if_finished()

    def reset(self) -> None:
        """End the stream at once on both sides; nothing happens after a whole exchange."""
        if self._error or (self._finished_reading and self._finished_writing):
            return
        if not self._first_flags & Flag.SYN:  # else the guest has not heard of it yet
            self._tell(Flag.RST)
        self.abort(Retryable("The stream to the VM's agent was closed.", code="agent-reset"))
        self._session.forget(self.number)

    # What the session tells a stream.

    def receive(self, data: bytes) -> None:
        if len(data) > self._allowed or (data and self._finished_reading):
            raise ProtocolError("it sent more than the window allows")
        if self._error:
            return
        self._allowed -= len(data)
        self._received += data
        self._readable.set()

    def widen(self, count: int) -> None:
        if self._window + count > 0xFFFFFFFF:
            raise ProtocolError("it opened a window beyond its bounds")
        self._window += count
        self._writable.set()

    def flagged(self, flags: Flag) -> None:
        if flags & Flag.FIN:
            self._finished_reading = True
            self._readable.set()
            self._forget_if_finished()
        if flags & Flag.RST:
            self.abort(Retryable("The VM's agent closed the stream.", code="agent-reset"))
            self._session.forget(self.number)

    def take_flags(self) -> Flag:
        flags, self._first_flags = self._first_flags, Flag.NONE
        return flags

    def abort(self, error: Retryable) -> None:
        self._error = self._error or error
        self._readable.set()
        self._writable.set()

    def _forget_if_finished(self) -> None:
        if self._finished_reading and self._finished_writing:
            self._session.forget(self.number)

    def _give_back(self) -> None:
        """Return window to the guest, half a window at a time."""
        free = WINDOW - len(self._received) - self._allowed
        if free >= WINDOW // 2 and not self._finished_reading and not self._error:
            self._allowed += free
            self._tell(Flag.NONE, free)

    def _tell(self, flags: Flag, count: int = 0) -> None:
        flags |= self.take_flags()
        self._session.send_control(Type.WINDOW_UPDATE, flags, self.number, count)


class Session:
    """The host's end of one connection.

    ``accept`` is called for each stream that the guest opens; it must return at once.
    Streams that the host opens have odd numbers, the guest's have even ones.
    """

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        accept: Callable[[Stream], None],
    ) -> None:
        self._reader, self._writer, self._accept = reader, writer, accept
        self._streams: dict[int, Stream] = {}
        self._next, self._last_guest = 1, 0
        self._pings: dict[int, asyncio.Future[None]] = {}
        self._ping_numbers = itertools.count(1)
        self._write_lock = asyncio.Lock()
        self._closed: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._run(), name="agent connection")

    def open_stream(self) -> Stream:
        """A new stream; the guest hears of it with the first bytes written."""
        self._check_open()
        if sum(number % 2 for number in self._streams) >= MAX_STREAMS:
            raise Retryable("Too much is going on with this VM's agent.", code="agent-busy")
        stream = Stream(self, self._next, Flag.SYN)
        self._streams[self._next] = stream
        self._next += 2
        return stream

    async def ping(self, timeout: float) -> float:
        """The seconds until the guest answered; ``Retryable`` if it did not in time."""
        self._check_open()
        number, started = next(self._ping_numbers) & 0xFFFFFFFF, time.monotonic()
        answer = self._pings[number] = asyncio.get_running_loop().create_future()
        try:
            self.send_control(Type.PING, Flag.SYN, 0, number)
            async with asyncio.timeout(timeout):
                await answer
        except TimeoutError:
            raise Retryable(
                f"The VM's agent did not answer a ping within {timeout:g} s.", code="agent-timeout"
            ) from None
        finally:
            del self._pings[number]
        return time.monotonic() - started

    async def wait_closed(self) -> str:
        """Returns when the connection has ended, with the reason."""
        return await asyncio.shield(self._closed)

    async def close(self, reason: str = "Nexus closed it") -> None:
        """End the connection and all its streams."""
        self.fail(reason)
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        with contextlib.suppress(OSError):
            await self._writer.wait_closed()

    def fail(self, reason: str) -> None:
        """End the connection for ``reason``; the first reason counts."""
        if self._closed.done():
            return
        self._closed.set_result(reason)
        for stream in self._streams.values():
            stream.abort(gone(reason))
        self._streams.clear()
        for answer in self._pings.values():
            if not answer.done():
                answer.set_exception(gone(reason))
        self._writer.transport.abort()

    def forget(self, number: int) -> None:
        """The stream is over."""
        self._streams.pop(number, None)

    def send_control(self, kind: Type, flags: Flag, number: int, length: int) -> None:
        """Send a frame without data and without waiting. A guest that asks for answers and does
        not read them must not fill the host's memory."""
        if self._closed.done():
            return
        self._writer.write(HEADER.pack(0, kind, flags, number, length))
        if self._writer.transport.get_write_buffer_size() > MAX_UNREAD:
            self.fail("the agent does not read what it is sent")

    async def send_data(self, stream: Stream, data: bytes) -> None:
        """Send a frame of data once there is room for it on the way to the guest."""
        async with self._write_lock:
            try:
                await self._writer.drain()  # first: a call that gives up here has added nothing
            except OSError as error:
                self.fail(str(error) or "it was cut")
            self._check_open()
            flags = stream.take_flags()
            self._writer.write(HEADER.pack(0, Type.DATA, flags, stream.number, len(data)) + data)

    def _check_open(self) -> None:
        if self._closed.done():
            raise gone(self._closed.result())

    async def _run(self) -> None:
        try:
            await self._read_frames()
        except asyncio.IncompleteReadError:
            self.fail("the other end closed it")
        except ProtocolError as error:
            self.fail(f"the agent broke the protocol: {error}")
        except OSError as error:
            self.fail(str(error) or "it was cut")
        finally:
            self.fail("Nexus closed it")

    async def _read_frames(self) -> None:
        for count in itertools.count(1):
            header = await self._reader.readexactly(HEADER.size)
            version, kind, flags, number, length = HEADER.unpack(header)
            if version or kind > Type.GO_AWAY or flags > 15 or (kind >= Type.PING) == bool(number):
                raise ProtocolError("it sent a frame that does not exist")
            await self._handle(Type(kind), Flag(flags), number, length)
            if count % FRAMES_PER_TURN == 0:
                await asyncio.sleep(0)

    async def _handle(self, kind: Type, flags: Flag, number: int, length: int) -> None:
        if kind is Type.PING:
            self._handle_ping(flags, length)
        elif kind is Type.GO_AWAY:
            raise ProtocolError(f"it said go away ({length})")
        else:
            stream = self._find(number, flags)
            if kind is Type.DATA:
                if length > WINDOW:
                    raise ProtocolError("it sent a frame longer than any window")
                data = await self._reader.readexactly(length)
                if stream:
                    stream.receive(data)
            elif stream:
                stream.widen(length)
            if stream:
                stream.flagged(flags)

    def _handle_ping(self, flags: Flag, number: int) -> None:
        if flags & Flag.SYN:
            self.send_control(Type.PING, Flag.ACK, 0, number)
        elif (answer := self._pings.get(number)) and not answer.done():
            answer.set_result(None)

    def _find(self, number: int, flags: Flag) -> Stream | None:
        """The stream of a frame; None when it is over or was refused."""
        if not flags & Flag.SYN:
            known = number < self._next if number % 2 else number <= self._last_guest
            if not known:
                raise ProtocolError("it spoke of a stream that never was")
            return self._streams.get(number)
        if number % 2 or number <= self._last_guest:
            raise ProtocolError("it opened a stream under a wrong number")
        self._last_guest = number
        if sum(number % 2 == 0 for number in self._streams) >= MAX_GUEST_STREAMS:
            self.send_control(Type.WINDOW_UPDATE, Flag.RST, number, 0)
            return None
        stream = self._streams[number] = Stream(self, number, Flag.ACK)
        self._accept(stream)
        return stream

"""What the websockets of programs in VMs share: who may, input, signals, sizes, how it ends.

Neither end ever holds more than a window of what the other one does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from typing import Any, Generic, TypeVar

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from pydantic import BaseModel, ValidationError

from guest_agent.chunks import Channel
from nexus_site.core import auth, events
from nexus_site.core.consumers import GREETING_TIMEOUT, caller_of
from nexus_site.core.errors import Invalid, NexusError, Retryable, as_nexus_error
from nexus_site.core.problems import unauthenticated
from vms.exec_schemas import TerminalSize

log = logging.getLogger(__name__)

WINDOW = 256 * 1024  # bytes of input that may be on their way
MAX_SIGNALS = 16  # that wait to be sent
LOOK_AFTER = 10.0  # seconds between two looks at whether the caller still may
DONE, CLOSE_CODE = 1000, 4000  # plus the HTTP status of what went wrong

ChannelT = TypeVar("ChannelT", bound=Channel)
ModelT = TypeVar("ModelT", bound=BaseModel)


class ProgramConsumer(AsyncWebsocketConsumer, Generic[ChannelT]):  # type: ignore[misc]
    """One channel to a program for each socket; the socket's end closes the channel."""

    async def connect(self) -> None:
        await self.accept()
        self._greeting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._signals: asyncio.Queue[int] = asyncio.Queue(MAX_SIGNALS)
        self._size: asyncio.LifoQueue[TerminalSize] = asyncio.LifoQueue(1)
        self._window = WINDOW
        self._ended_input = False
        self._work = asyncio.create_task(self._serve())

    async def disconnect(self, code: int) -> None:
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Never waits: what comes is bounded, and put aside for those who do."""
        try:
            if not self._greeting.done():
                self._greeting.set_result(text_data or "")
            elif bytes_data is not None:
                self._take_input(bytes_data)
            else:
                self._take_order(_object(text_data or ""))
        except NexusError as error:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            await self._fail(error)

    # What a kind of socket says for itself

    async def open(self, ref: str, greeting: str) -> ChannelT:
        """The channel that the client's first message asks for, on the VM called ``ref``."""
        raise NotImplementedError

    async def announce(self, channel: ChannelT) -> None:
        """Tell the client what it has got."""
        raise NotImplementedError

    async def pass_output(self, channel: ChannelT) -> None:
        """Send all output; returns when the channel has its exit."""
        raise NotImplementedError

    async def announce_exit(self, channel: ChannelT) -> None:
        """Tell the client how it ended."""
        raise NotImplementedError

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        await self.send(json.dumps({"type": kind, **fields}))

    # What all do

    def _take_input(self, data: bytes) -> None:
        self._window -= len(data)
        if self._window < 0:
            raise Invalid("More input came than the window allows.", code="bad-message")
        if not self._ended_input:
            self._input.put_nowait(data)

    def _take_order(self, order: dict[str, Any]) -> None:
        match order.get("type"):
            case "eof":
                if not self._ended_input:
                    self._ended_input = True
                    self._input.put_nowait(None)
            case "signal":
                number = signal_number(order.get("signal"))
                with contextlib.suppress(asyncio.QueueFull):
                    self._signals.put_nowait(number)
            case "resize":
                size = checked(TerminalSize, {"rows": order.get("rows"), "cols": order.get("cols")})
                with contextlib.suppress(asyncio.QueueEmpty):
                    self._size.get_nowait()  # only the last one counts
                self._size.put_nowait(size)
            case _:
                raise Invalid("This is no message of this socket.", code="bad-message")

    async def _serve(self) -> None:
        try:
            caller = await self._caller()
            async with asyncio.timeout(GREETING_TIMEOUT):
                greeting = await self._greeting
            with events.acting(caller.actor):
                channel = await self.open(self.scope["url_route"]["kwargs"]["ref"], greeting)
            await self._converse(channel)
            await self.close(DONE)
        except TimeoutError:
            await self._fail(Invalid("Nothing was asked for in time.", code="bad-message"))
        except Exception as error:
            if not isinstance(error, NexusError):
                log.exception("a websocket failed: %s", self.scope["path"])
            await self._fail(as_nexus_error(error))

    async def _caller(self) -> auth.Caller:
        """Who asks, if they may run programs."""
        caller: auth.Caller | None = await database_sync_to_async(caller_of)(self.scope)
        if caller is None:
            raise unauthenticated()
        caller.require("operate")
        return caller

    async def _converse(self, channel: ChannelT) -> None:
        """Carry everything both ways until the exit; raises what goes wrong."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self.announce(channel)
            reading = asyncio.create_task(self.pass_output(channel))
            tasks |= {reading, asyncio.create_task(self._look_after())}
            tasks |= {
                asyncio.create_task(work(channel))
                for work in (self._feed, self._pass_signals, self._pass_sizes)
            }
            pending = tasks
            while not reading.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            await self.announce_exit(channel)
        finally:
            channel.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _feed(self, channel: ChannelT) -> None:
        """Give the program its input, and the client room for as much again."""
        with contextlib.suppress(Retryable):  # the agent is lost: whoever reads knows why
            while (data := await self._input.get()) is not None:
                await channel.write(data)
                self._window += len(data)
                await self.tell("window", bytes=len(data))
            await channel.write_eof()

    async def _pass_signals(self, channel: ChannelT) -> None:
        with contextlib.suppress(Retryable):
            while True:
                await channel.signal(await self._signals.get())

    async def _pass_sizes(self, channel: ChannelT) -> None:
        with contextlib.suppress(Retryable):
            while True:
                size = await self._size.get()
                await channel.resize(size.rows, size.cols)

    async def _look_after(self) -> None:
        """Returns never; raises when the caller may no more."""
        while True:
            await asyncio.sleep(LOOK_AFTER)
            await self._caller()

    async def _fail(self, error: NexusError) -> None:
        await self.tell("error", problem=error.problem())
        await self.close(CLOSE_CODE + error.status)


def greeted(model: type[ModelT], greeting: str) -> ModelT:
    """The client's first message; ``Invalid`` where it is none."""
    return checked(model, _object(greeting))


def checked(model: type[ModelT], fields: dict[str, Any]) -> ModelT:
    """A message as ``model`` has it; ``Invalid`` says what is wrong with it."""
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Invalid("; ".join(problems), code="validation") from None


def signal_number(name: object) -> int:
    """The number of ``INT``, ``SIGINT`` or 2."""
    if type(name) is int and 1 <= name <= 64:
        return name
    if isinstance(name, str):
        known = signal.Signals.__members__.get(f"SIG{name.upper().removeprefix('SIG')}")
        if known is not None:
            return int(known)
    raise Invalid("There is no such signal.", code="bad-signal")


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("A message is a JSON object.", code="bad-message")
    return found

"""What websockets to the inside of VMs share: who may, input, sizes, how they end.

Neither end ever holds more than a window of what the other one does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from nexus_site.core import auth, events
from nexus_site.core.consumers import caller_of
from nexus_site.core.errors import Invalid, NexusError, Retryable, as_nexus_error
from nexus_site.core.problems import unauthenticated

log = logging.getLogger(__name__)

WINDOW = 256 * 1024  # bytes of input that may be on their way
LOOK_AFTER = 10.0  # seconds between two looks at whether the caller still may
DONE, CLOSE_CODE = 1000, 4000  # plus the HTTP status of what went wrong


class Inside(Protocol):
    """What a socket leads to."""

    async def write(self, data: bytes) -> None: ...
    async def write_eof(self) -> None: ...
    def close(self) -> None: ...


InsideT = TypeVar("InsideT", bound=Inside)
Work = Callable[[InsideT], Coroutine[Any, Any, None]]


class StreamConsumer(AsyncWebsocketConsumer, Generic[InsideT]):  # type: ignore[misc]
    """One way into a VM for each socket; the socket's end closes it."""

    async def connect(self) -> None:
        await self.accept()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._window = WINDOW
        self._ended_input = False
        self.prepare()
        self._work = asyncio.create_task(self._serve())

    async def disconnect(self, code: int) -> None:
        self._work.cancel()
        await asyncio.gather(self._work, return_exceptions=True)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Never waits: what comes is bounded, and put aside for those who do."""
        try:
            self.take(text_data, bytes_data)
        except NexusError as error:
            self._work.cancel()
            await asyncio.gather(self._work, return_exceptions=True)
            await self._fail(error)

    # What a kind of socket says for itself

    def prepare(self) -> None:
        """Make what is needed before the first message comes."""

    def take(self, text: str | None, data: bytes | None) -> None:
        """A message of the client."""
        if data is not None:
            self._take_input(data)
        else:
            self.take_order(json_object(text or ""))

    def take_order(self, order: dict[str, Any]) -> None:
        """A message that is no input; ``Invalid`` where there is none such."""
        if order.get("type") != "eof":
            raise Invalid("This is no message of this socket.", code="bad-message")
        if not self._ended_input:
            self._ended_input = True
            self._input.put_nowait(None)

    async def open(self, ref: str) -> InsideT:
        """What the client asks for, in the VM called ``ref``."""
        raise NotImplementedError

    async def announce(self, inside: InsideT) -> None:
        """Tell the client what it has got."""
        raise NotImplementedError

    async def pass_output(self, inside: InsideT) -> None:
        """Send all output; returns when there is nothing more to do."""
        raise NotImplementedError

    def beside(self) -> list[Work[InsideT]]:
        """What goes on beside the output, until that ends."""
        return [self.feed]

    async def announce_exit(self, inside: InsideT) -> None:
        """Tell the client how it ended."""

    # What all do

    async def tell(self, kind: str, **fields: Any) -> None:
        """Send one message."""
        await self.send(json.dumps({"type": kind, **fields}))

    async def feed(self, inside: InsideT) -> None:
        """Pass the input on, and give the client room for as much again."""
        with contextlib.suppress(Retryable):  # the agent is lost: whoever reads knows why
            await self.pass_input(inside)

    async def pass_input(self, inside: InsideT) -> None:
        while (data := await self._input.get()) is not None:
            await inside.write(data)
            self._window += len(data)
            await self.tell("window", bytes=len(data))
        await inside.write_eof()

    def _take_input(self, data: bytes) -> None:
        self._window -= len(data)
        if self._window < 0:
            raise Invalid("More input came than the window allows.", code="bad-message")
        if not self._ended_input:
            self._input.put_nowait(data)

    async def _serve(self) -> None:
        try:
            caller = await self._caller()
            with events.acting(caller.actor):
                inside = await self.open(self.scope["url_route"]["kwargs"]["ref"])
            await self._converse(inside)
            await self.close(DONE)
        except Exception as error:
            if not isinstance(error, NexusError):
                log.exception("a websocket failed: %s", self.scope["path"])
            await self._fail(as_nexus_error(error))

    async def _caller(self) -> auth.Caller:
        """Who asks, if they may use what is in VMs."""
        caller: auth.Caller | None = await database_sync_to_async(caller_of)(self.scope)
        if caller is None:
            raise unauthenticated()
        caller.require("operate")
        return caller

    async def _converse(self, inside: InsideT) -> None:
        """Carry everything both ways until the end; raises what goes wrong."""
        tasks: set[asyncio.Task[None]] = set()
        try:
            await self.announce(inside)
            reading = asyncio.create_task(self.pass_output(inside))
            tasks |= {reading, asyncio.create_task(self._look_after())}
            tasks |= {asyncio.create_task(work(inside)) for work in self.beside()}
            pending = tasks
            while not reading.done():
                done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
            await self.announce_exit(inside)
        finally:
            inside.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _look_after(self) -> None:
        """Returns never; raises when the caller may no more."""
        while True:
            await asyncio.sleep(LOOK_AFTER)
            await self._caller()

    async def _fail(self, error: NexusError) -> None:
        await self.tell("error", problem=error.problem())
        await self.close(CLOSE_CODE + error.status)


def json_object(text: str) -> dict[str, Any]:
    """A message's object; ``Invalid`` where it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("A message is a JSON object.", code="bad-message")
    return found

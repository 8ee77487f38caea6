"""What the websockets of programs in VMs share: the greeting, signals, sizes of terminals."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from guest_agent.chunks import Channel
from nexus_site.core.consumers import GREETING_TIMEOUT
from nexus_site.core.errors import Invalid, Retryable
from vms.exec_schemas import TerminalSize
from vms.stream_socket import StreamConsumer, Work, json_object

MAX_SIGNALS = 16  # that wait to be sent

ChannelT = TypeVar("ChannelT", bound=Channel)
ModelT = TypeVar("ModelT", bound=BaseModel)


class ProgramConsumer(StreamConsumer[ChannelT]):
    """One channel to a program for each socket; the client's first message says which."""

    def prepare(self) -> None:
        self._greeting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._signals: asyncio.Queue[int] = asyncio.Queue(MAX_SIGNALS)
        self._size: asyncio.LifoQueue[TerminalSize] = asyncio.LifoQueue(1)

    def take(self, text: str | None, data: bytes | None) -> None:
        if not self._greeting.done():
            self._greeting.set_result(text or "")
        else:
            super().take(text, data)

    def take_order(self, order: dict[str, Any]) -> None:
        match order.get("type"):
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
                super().take_order(order)

    async def open(self, ref: str) -> ChannelT:
        try:
            async with asyncio.timeout(GREETING_TIMEOUT):
                greeting = await self._greeting
        except TimeoutError:
            raise Invalid("Nothing was asked for in time.", code="bad-message") from None
        return await self.open_channel(ref, greeting)

    async def open_channel(self, ref: str, greeting: str) -> ChannelT:
        """The channel that the client's first message asks for, on the VM called ``ref``."""
        raise NotImplementedError

    def beside(self) -> list[Work[ChannelT]]:
        return [*super().beside(), self._pass_signals, self._pass_sizes]

    async def _pass_signals(self, channel: ChannelT) -> None:
        with contextlib.suppress(Retryable):
            while True:
                await channel.signal(await self._signals.get())

    async def _pass_sizes(self, channel: ChannelT) -> None:
        with contextlib.suppress(Retryable):
            while True:
                size = await self._size.get()
                await channel.resize(size.rows, size.cols)


def greeted(model: type[ModelT], greeting: str) -> ModelT:
    """The client's first message; ``Invalid`` where it is none."""
    return checked(model, json_object(greeting))


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

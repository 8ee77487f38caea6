"""A program in a VM over a websocket: input, signals and output while it runs.

``/ws/vms/<ref>/exec``; docs/reference/api.md has the messages. Neither end ever holds more than
a window of what the other one does not take.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import time
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from pydantic import ValidationError

from guest_agent.exec import Execution
from nexus_site.core import auth, events
from nexus_site.core.consumers import GREETING_TIMEOUT, caller_of
from nexus_site.core.errors import Invalid, NexusError, as_nexus_error
from nexus_site.core.problems import unauthenticated
from vms import services
from vms.agents import GatewayAgent
from vms.exec_schemas import ExecSocketIn, ExitOut

log = logging.getLogger(__name__)

WINDOW = 256 * 1024  # bytes of input that may be on their way
MAX_SIGNALS = 16  # that wait to be sent
LOOK_AFTER = 10.0  # seconds between two looks at whether the caller still may
DONE, CLOSE_CODE = 1000, 4000  # plus the HTTP status of what went wrong


class ExecConsumer(AsyncWebsocketConsumer):  # type: ignore[misc]
    """One program for each socket; whoever closes it ends the program and its process group."""

    async def connect(self) -> None:
        await self.accept()
        self._greeting: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._input: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._signals: asyncio.Queue[int] = asyncio.Queue(MAX_SIGNALS)
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
                number = _signal_number(order.get("signal"))
                with contextlib.suppress(asyncio.QueueFull):
                    self._signals.put_nowait(number)
            case _:
                raise Invalid("This is no message of this socket.", code="bad-message")

    async def _serve(self) -> None:
        try:
            caller = await self._caller()
            async with asyncio.timeout(GREETING_TIMEOUT):
                greeting = await self._greeting
            with events.acting(caller.actor):
                await self._run(_parsed(greeting))
            await self.close(DONE)
        except TimeoutError:
            await self._fail(Invalid("No program was named in time.", code="bad-message"))
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

    async def _run(self, wanted: ExecSocketIn) -> None:
        began = time.monotonic()
        ref = self.scope["url_route"]["kwargs"]["ref"]
        program = wanted.program(stdin=wanted.stdin)
        vm = await database_sync_to_async(services.admit_program)(ref, program)
        execution = await GatewayAgent(vm).start(program)
        helpers = [
            asyncio.create_task(work)
            for work in (self._feed(execution), self._pass_signals(execution), self._look_after())
        ]
        try:
            await self._tell("started", pid=execution.pid)
            reading = asyncio.create_task(self._pass_output(execution))
            helpers.append(reading)
            await asyncio.wait({reading, helpers[2]}, return_when=asyncio.FIRST_COMPLETED)
            for task in (helpers[2], reading):
                if task.done():
                    task.result()
            assert execution.exit is not None, "there is an exit after the last output"
            ended = ExitOut.of(execution.exit, time.monotonic() - began)
            await self._tell("exit", **ended.model_dump())
        finally:
            execution.close()
            for task in helpers:
                task.cancel()
            await asyncio.gather(*helpers, return_exceptions=True)

    async def _pass_output(self, execution: Execution) -> None:
        while output := await execution.read():
            await self.send(bytes_data=bytes([output[0]]) + output[1])

    async def _feed(self, execution: Execution) -> None:
        """Give the program its input, and the client room for as much again."""
        while (data := await self._input.get()) is not None:
            await execution.write(data)
            self._window += len(data)
            await self._tell("window", bytes=len(data))
        await execution.write_eof()

    async def _pass_signals(self, execution: Execution) -> None:
        while True:
            await execution.signal(await self._signals.get())

    async def _look_after(self) -> None:
        """Returns never; raises when the caller may no more."""
        while True:
            await asyncio.sleep(LOOK_AFTER)
            await self._caller()

    async def _tell(self, kind: str, **fields: Any) -> None:
        await self.send(json.dumps({"type": kind, **fields}))

    async def _fail(self, error: NexusError) -> None:
        await self._tell("error", problem=error.problem())
        await self.close(CLOSE_CODE + error.status)


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise Invalid("A message is a JSON object.", code="bad-message")
    return found


def _parsed(greeting: str) -> ExecSocketIn:
    try:
        return ExecSocketIn.model_validate(_object(greeting))
    except ValidationError as error:
        problems = (f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
        raise Invalid("; ".join(problems), code="validation") from None


def _signal_number(name: object) -> int:
    """The number of ``INT``, ``SIGINT`` or 2."""
    if type(name) is int and 1 <= name <= 64:
        return name
    if isinstance(name, str):
        known = signal.Signals.__members__.get(f"SIG{name.upper().removeprefix('SIG')}")
        if known is not None:
            return int(known)
    raise Invalid("There is no such signal.", code="bad-signal")

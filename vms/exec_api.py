"""Programs in VMs over HTTP: their output at the end, or as server-sent events."""

from __future__ import annotations

import asyncio
import base64
import codecs
import json
import time
from collections.abc import AsyncIterator
from typing import Any, cast

from asgiref.sync import sync_to_async
from channels.db import database_sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Router

from guest_agent.exec import Execution
from nexus_site.core import consumers
from nexus_site.core.errors import NexusError, as_nexus_error
from vms import services
from vms.agents import GatewayAgent
from vms.exec_schemas import ExecIn, ExecOut, ExitOut

router = Router()

MAX_OUTPUT = 1 << 20  # bytes of each output that a buffered answer holds
KEEP_ALIVE = 15.0  # seconds of silence after which a stream says it is alive
NAMES = {1: "stdout", 2: "stderr"}
EVENTS: dict[str, Any] = {"responses": {200: {"content": {"text/event-stream": {}}}}}


@router.post("/vms/{ref}/exec", response=ExecOut, openapi_extra=EVENTS)
async def exec_program(
    request: HttpRequest, ref: str, data: ExecIn
) -> ExecOut | StreamingHttpResponse:
    """Run a program in a ready VM and answer when it has ended.

    With ``Accept: text/event-stream`` its output comes as it is written. A caller who hangs up
    ends the program and its process group.
    """
    stdin = data.stdin_bytes()
    began = time.monotonic()
    program = data.program(stdin=stdin is not None)
    vm = await sync_to_async(services.admit_program)(ref, program)
    execution = await GatewayAgent(vm).start(program)
    run = Run(execution, stdin, began)
    if "text/event-stream" in request.headers.get("Accept", ""):
        return _streamed(request, run, data.output)
    try:
        return await _buffered(run, data.output)
    finally:
        run.close()


class Run:
    """An execution with all of its input."""

    def __init__(self, execution: Execution, stdin: bytes | None, began: float) -> None:
        self.execution, self.began = execution, began
        self._feeding = asyncio.create_task(self._feed(stdin))

    async def _feed(self, stdin: bytes | None) -> None:
        if stdin is None:
            return
        try:
            await self.execution.write(stdin)
            await self.execution.write_eof()
        except NexusError:
            pass  # whoever reads is told

    def exit(self) -> ExitOut:
        """How it ended; after the last output."""
        assert self.execution.exit is not None, "there is an exit after the last output"
        return ExitOut.of(self.execution.exit, time.monotonic() - self.began)

    def close(self) -> None:
        self._feeding.cancel()
        self.execution.close()


# All at the end


class Kept:
    """The beginning of one output."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.truncated = False

    def add(self, data: bytes) -> None:
        room = MAX_OUTPUT - len(self.data)
        self.data += data[:room]
        self.truncated = self.truncated or len(data) > room


async def _buffered(run: Run, encoding: str) -> ExecOut:
    kept = {1: Kept(), 2: Kept()}
    while output := await run.execution.read():
        kept[output[0]].add(output[1])
    return ExecOut(
        **run.exit().model_dump(),
        stdout=_encoded(kept[1].data, encoding),
        stderr=_encoded(kept[2].data, encoding),
        stdout_truncated=kept[1].truncated,
        stderr_truncated=kept[2].truncated,
    )


def _encoded(data: bytes | bytearray, encoding: str) -> str:
    if encoding == "base64":
        return base64.b64encode(data).decode()
    return data.decode("utf-8", "replace")


# As it comes


def _streamed(request: HttpRequest, run: Run, encoding: str) -> StreamingHttpResponse:
    response = StreamingHttpResponse(
        _messages(request, run, encoding),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )
    # A caller who is gone before the first message leaves a generator that never began.
    cast(Any, response)._resource_closers.append(run.close)
    return response


async def _messages(request: HttpRequest, run: Run, encoding: str) -> AsyncIterator[str]:
    """Events ``started``, ``stdout``, ``stderr`` and at last ``exit`` or ``error``; an output's
    ``id`` is how many bytes of output there were with it."""
    offset = 0
    pieces = {name: Pieces(encoding) for name in NAMES}
    try:
        yield _message("started", {"pid": run.execution.pid})
        async for output in _with_pauses(run.execution):
            if output is None:
                if not await database_sync_to_async(_may_still_run)(request):
                    return
                yield ": alive\n\n"
                continue
            offset += len(output[1])
            yield _message(NAMES[output[0]], pieces[output[0]].take(output[1]), offset)
        for name, rest in pieces.items():
            if text := rest.end():
                yield _message(NAMES[name], text, offset)
        yield _message("exit", run.exit().model_dump())
    except NexusError as error:
        yield _message("error", as_nexus_error(error).problem())
    finally:
        run.close()


async def _with_pauses(execution: Execution) -> AsyncIterator[tuple[int, bytes] | None]:
    """Every output; None when it is time to look around."""
    reading, look_at = asyncio.create_task(execution.read()), _clock() + KEEP_ALIVE
    try:
        while True:
            await asyncio.wait({reading}, timeout=max(look_at - _clock(), 0))
            if _clock() >= look_at:
                look_at = _clock() + KEEP_ALIVE
                yield None
            if reading.done():
                output = reading.result()
                if output is None:
                    return
                reading = asyncio.create_task(execution.read())
                yield output
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


class Pieces:
    """One output in pieces; a character cut in two is put together."""

    def __init__(self, encoding: str) -> None:
        self._decoder = None
        if encoding == "text":
            self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def take(self, data: bytes) -> dict[str, str]:
        if self._decoder is None:
            return {"base64": base64.b64encode(data).decode()}
        return {"text": self._decoder.decode(data)}

    def end(self) -> dict[str, str] | None:
        """What is left, if anything."""
        text = self._decoder.decode(b"", final=True) if self._decoder else ""
        return {"text": text} if text else None


def _message(event: str, data: dict[str, Any], offset: int | None = None) -> str:
    number = "" if offset is None else f"id: {offset}\n"
    return f"event: {event}\n{number}data: {json.dumps(data)}\n\n"


def _may_still_run(request: HttpRequest) -> bool:
    caller = consumers.caller_of(cast(Any, request).scope)
    return caller is not None and caller.may("operate")


def _clock() -> float:
    return asyncio.get_running_loop().time()

"""Programs in VMs over HTTP: their output at the end, or as server-sent events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

from asgiref.sync import async_to_sync, sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Router, Status

from guest_agent.exec import Execution
from nexus_site.core.errors import Invalid, NexusError
from vms import program_streams, services
from vms.exec_schemas import ExecIn, ExecOut, ExitOut
from vms.program_streams import EVENTS, NAMES, Pieces, encoded, event_stream, message, while_allowed
from vms.sessions_schemas import SessionOut

router = Router()


@router.post("/vms/{ref}/exec", response={200: ExecOut, 201: SessionOut}, openapi_extra=EVENTS)
def exec_program(
    request: HttpRequest, ref: str, data: ExecIn
) -> ExecOut | StreamingHttpResponse | Status[SessionOut]:
    """Run a program in a ready VM and answer when it has ended.

    With ``Accept: text/event-stream`` its output comes as it is written. A caller who hangs up
    ends the program and its process group. With ``detach`` it is a session, which lives on.
    """
    if data.detach:
        return Status(201, async_to_sync(_detached)(ref, data))
    stdin = data.stdin_bytes()
    began = time.monotonic()
    program = data.program(stdin=stdin is not None)
    vm = services.ready_vm(ref)  # before the loop is entered: it costs no way back

    async def run_program() -> ExecOut | StreamingHttpResponse:
        run = Run(await services.start_program(vm, program), stdin, began)
        if program_streams.wants_events(request):
            return event_stream(_messages(request, run, data.output), run.close)
        try:
            return await _buffered(run, data.output)
        finally:
            run.close()

    return async_to_sync(run_program)()


async def _detached(ref: str, data: ExecIn) -> SessionOut:
    if data.stdin is not None:
        raise Invalid(
            "A program that is detached is given no input with the request.",
            hint="POST …/sessions with stdin: true, then …/sessions/{session}/input.",
            code="bad-stdin",
        )
    program = data.program(stdin=data.tty is not None)
    vm = await sync_to_async(services.ready_vm)(ref)
    session_id = await services.start_named_session(vm, program)
    return SessionOut.of(await services.find_session(vm, session_id))


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
        room = program_streams.MAX_OUTPUT - len(self.data)
        self.data += data[:room]
        self.truncated = self.truncated or len(data) > room


async def _buffered(run: Run, encoding: str) -> ExecOut:
    kept = {1: Kept(), 2: Kept()}
    while output := await run.execution.read():
        kept[output[0]].add(output[1])
    return ExecOut(
        **run.exit().model_dump(),
        stdout=encoded(kept[1].data, encoding),
        stderr=encoded(kept[2].data, encoding),
        stdout_truncated=kept[1].truncated,
        stderr_truncated=kept[2].truncated,
    )


# As it comes


async def _messages(request: HttpRequest, run: Run, encoding: str) -> AsyncIterator[str]:
    """Events ``started``, ``stdout``, ``stderr`` and at last ``exit``."""
    offset = 0
    pieces = {name: Pieces(encoding) for name in NAMES}
    yield message("started", {"pid": run.execution.pid})
    async for output in while_allowed(request, run.execution.read):
        if output is None:
            yield program_streams.ALIVE
            continue
        offset += len(output[1])
        yield message(NAMES[output[0]], pieces[output[0]].take(output[1]), offset)
    for name, rest in pieces.items():
        if text := rest.end():
            yield message(NAMES[name], text, offset)
    yield message("exit", run.exit().model_dump())

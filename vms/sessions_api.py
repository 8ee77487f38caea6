"""Sessions over HTTP: programs that live on in VMs, and what is kept of their output.

All of it needs the scope ``operate``: arguments and output may say more than a reader may know.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from asgiref.sync import sync_to_async
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from ninja import Query, Router, Status

from guest_agent import replies
from guest_agent.sessions import Attachment
from nexus_site.core.errors import Invalid
from nexus_site.core.problems import BearerToken
from vms import program_streams, services
from vms.program_socket import signal_number
from vms.program_streams import EVENTS, NAMES, Pieces, event_stream, message, while_allowed
from vms.sessions_schemas import (
    MAX_INPUT,
    ForgetQuery,
    HowEnded,
    InputIn,
    OutputQuery,
    SessionIn,
    SessionOut,
    SessionOutput,
    SignalIn,
)

OUTPUT_PATIENCE = 30.0  # seconds for what a session has written already

router = Router(auth=BearerToken("operate"))
ready_vm = sync_to_async(services.ready_vm)


@router.get("/vms/{ref}/sessions", response=list[SessionOut])
async def list_sessions(request: HttpRequest, ref: str) -> list[SessionOut]:
    """All that run in a VM, and those that have ended and are not forgotten, oldest first."""
    sessions = await services.sessions_of(await ready_vm(ref)).list()
    return [SessionOut.of(session) for session in sessions]


@router.post("/vms/{ref}/sessions", response={200: SessionOut, 201: SessionOut})
async def start_session(request: HttpRequest, ref: str, data: SessionIn) -> Status[SessionOut]:
    """Start a program that lives on by itself.

    Where there is a session of that ``id`` nothing is started: the answer is that one, with 200.
    """
    program, status = data.program(stdin=data.stdin or data.tty is not None), 201
    vm = await ready_vm(ref)
    session_id = data.id
    if not session_id:
        session_id = await services.start_named_session(vm, program, data.keep_bytes)
    elif (await services.start_session(vm, session_id, program, data.keep_bytes)).existing:
        status = 200
    return Status(status, SessionOut.of(await services.find_session(vm, session_id)))


@router.get("/vms/{ref}/sessions/{session}", response=SessionOut)
async def get_session(request: HttpRequest, ref: str, session: str) -> SessionOut:
    """One session: whether it runs, how it ended, how much output there is."""
    return SessionOut.of(await services.find_session(await ready_vm(ref), session))


@router.delete("/vms/{ref}/sessions/{session}", response={204: None})
async def forget_session(
    request: HttpRequest, ref: str, session: str, query: Query[ForgetQuery]
) -> HttpResponse:
    """Give up what is kept of a session that has ended, or of any with ``force``."""
    await services.forget_session(await ready_vm(ref), session, force=query.force)
    return HttpResponse(status=204)


@router.post("/vms/{ref}/sessions/{session}/signal", response={204: None})
async def signal_session(
    request: HttpRequest, ref: str, session: str, data: SignalIn
) -> HttpResponse:
    """Send a signal to a session's process group."""
    number = signal_number(data.signal)
    await services.signal_session(await ready_vm(ref), session, number)
    return HttpResponse(status=204)


@router.post("/vms/{ref}/sessions/{session}/input", response={204: None})
async def type_into_session(
    request: HttpRequest, ref: str, session: str, data: InputIn
) -> HttpResponse:
    """Give a session input; answers when its program has read it."""
    given = data.bytes()
    if len(given) > MAX_INPUT:
        raise Invalid("Input has at most 64 KiB at once.", code="too-much-input")
    await services.type_into_session(await ready_vm(ref), session, given, end=data.end)
    return HttpResponse(status=204)


@router.get("/vms/{ref}/sessions/{session}/output", response=SessionOutput, openapi_extra=EVENTS)
async def get_session_output(
    request: HttpRequest, ref: str, session: str, query: Query[OutputQuery]
) -> SessionOutput | StreamingHttpResponse:
    """What a session has written since an offset.

    With ``follow``, or ``Accept: text/event-stream``, as events until it has ended; a client that
    comes back with ``Last-Event-ID`` misses nothing that is kept.
    """
    vm = await ready_vm(ref)
    if query.follow or program_streams.wants_events(request):
        offset = _last_event(request, query.offset)
        look = await services.look_at_session(vm, session, offset)
        return event_stream(_messages(request, look, offset, query.encoding), look.close)
    state = await services.find_session(vm, session)
    look = await services.look_at_session(vm, session, query.offset)
    try:
        async with asyncio.timeout(OUTPUT_PATIENCE):
            return await _so_far(look, state.size, HowEnded.of(state.exit), query)
    except TimeoutError:
        raise replies.too_slow("did not give its output", OUTPUT_PATIENCE) from None
    finally:
        look.close()


def _last_event(request: HttpRequest, offset: int) -> int:
    last = request.headers.get("Last-Event-ID", "")
    return int(last) if last.isascii() and last.isdigit() and len(last) < 17 else offset


async def _so_far(
    look: Attachment, size: int, ended: HowEnded | None, query: OutputQuery
) -> SessionOutput:
    """All that there was when it had written ``size`` bytes, as far as an answer holds it."""
    began, last = look.offset, 1
    lost = max(began - query.offset, 0)
    kept = {kind: bytearray() for kind in NAMES}
    while look.offset < size and sum(map(len, kept.values())) < program_streams.MAX_OUTPUT:
        if (output := await look.read()) is None:
            break
        last, lost = output.kind, lost + output.lost
        kept[last] += output.data
    over = ended is not None and look.offset >= size
    texts, cut = {}, 0
    for kind, data in kept.items():
        pieces = Pieces(query.encoding)
        text = "".join(pieces.take(bytes(data)).values())
        if kind == last and not over:
            cut = pieces.pending  # the next answer has the whole character
        else:
            text += "".join((pieces.end() or {}).values())
        texts[NAMES[kind]] = text
    return SessionOutput(
        **texts,
        offset=began,
        next_offset=look.offset - cut,
        size=max(size, look.offset),
        lost=lost,
        exit=ended,
    )


async def _messages(
    request: HttpRequest, look: Attachment, wanted: int, encoding: str
) -> AsyncIterator[str]:
    """Events ``attached``, ``stdout``, ``stderr``, ``gap`` and at last ``exit``."""
    pieces = {kind: Pieces(encoding) for kind in NAMES}
    yield message("attached", {"pid": look.pid, "tty": look.tty, "offset": look.offset})
    if look.offset > wanted:
        yield message("gap", {"lost": look.offset - wanted}, look.offset)
    async for output in while_allowed(request, look.read):
        if output is None:
            yield program_streams.ALIVE
            continue
        if output.lost:
            yield message("gap", {"lost": output.lost}, output.offset)
        piece = pieces[output.kind]
        text = piece.take(output.data)
        # A character that is cut in two is told with its second half, and asked for whole again.
        yield message(NAMES[output.kind], text, output.offset + len(output.data) - piece.pending)
    for kind, rest in pieces.items():
        if text_left := rest.end():
            yield message(NAMES[kind], text_left, look.offset)
    ended = HowEnded.of(look.exit)
    assert ended is not None, "there is an exit after the last output"
    yield message("exit", ended.model_dump(), look.offset)

"""Operations, events and tokens over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

from channels.db import database_sync_to_async
from django.http import HttpRequest, StreamingHttpResponse
from ninja import Field, Query, Router, Status
from ninja.responses import NinjaJSONEncoder

from nexus_site.core import auth, consumers, events, operations
from nexus_site.core.errors import Invalid
from nexus_site.core.http import wait_for_end
from nexus_site.core.ids import NexusID, is_id, resolve
from nexus_site.core.models import Event, Operation, Token
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.problems import BearerToken
from nexus_site.core.schemas import (
    CreateToken,
    EventOut,
    EventPage,
    NewToken,
    OperationOut,
    OperationState,
    OperationSummary,
    Page,
    SignInLink,
    TokenOut,
)

router = Router(tags=["operations and events"])
admin_router = Router(tags=["administration"], auth=BearerToken("admin"))

HEARTBEAT_INTERVAL = 15.0  # seconds of silence after which a stream says it is alive


class OperationQuery(PageQuery):
    state: OperationState | None = None
    kind: str = Field("", description="Such as vm.start.")
    subject: str = Field("", description="The ID of the VM, drive, image… it is about.")


@router.get("/operations", response=Page[OperationSummary])
def list_operations(request: HttpRequest, query: Query[OperationQuery]) -> Slice:
    """Operations, newest first; parts of others are left out."""
    rows = Operation.objects.filter(parent=None)
    if query.state:
        rows = rows.filter(state=query.state)
    if query.kind:
        rows = rows.filter(kind=query.kind)
    if query.subject:
        rows = rows.filter(subject_id=_id(query.subject))
    return paginate(rows, query, "-created_at")


@router.get("/operations/{ref}", response=OperationOut)
def get_operation(
    request: HttpRequest, ref: str, wait: Annotated[float, Query(ge=0, le=60)] = 0
) -> Operation:
    """One operation with its steps; ``wait`` answers at its end or after so many seconds."""
    return wait_for_end(resolve(Operation.objects.all(), ref), wait)


@router.post("/operations/{ref}/cancel", response={202: OperationOut})
def cancel_operation(request: HttpRequest, ref: str) -> Status[Operation]:
    """Ask an operation to stop; it does at its next step, and undoes what it did."""
    operation = resolve(Operation.objects.all(), ref)
    operations.cancel(operation)
    return Status(202, wait_for_end(operation, 0))


@router.get("/events", response=EventPage)
def list_events(
    request: HttpRequest,
    after: Annotated[int | None, Query(ge=0)] = None,
    limit: Annotated[int, Query(ge=1, le=500)] = 100,
) -> dict[str, Any]:
    """What happened after event number ``after``; without it, the newest events."""
    last_seq = events.last_seq()
    if after is None:
        after = max(last_seq - limit, 0)
    items = events.after(after, limit)
    next_after = items[-1].seq if items else after
    return {"items": items, "next_after": next_after, "last_seq": last_seq}


@router.get(
    "/events/stream",
    openapi_extra={"responses": {200: {"content": {"text/event-stream": {}}}}},
)
async def stream_events(
    request: HttpRequest, after: Annotated[int | None, Query(ge=0)] = None
) -> StreamingHttpResponse:
    """The event log as server-sent events, without end.

    Starts after ``Last-Event-ID`` or ``after``, else now; each message has its number as
    ``id`` and an event as JSON ``data``. A comment is sent when nothing else is.
    """
    last_id = request.headers.get("Last-Event-ID", "")
    if last_id.isdecimal():
        after = int(last_id)
    if after is None:
        after = await database_sync_to_async(events.last_seq)()
    return StreamingHttpResponse(
        _messages(request, after),
        content_type="text/event-stream",
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
    )


async def _messages(request: HttpRequest, after: int) -> AsyncIterator[str]:
    """The stream, for as long as the client reads and may."""
    yield ": connected\n\n"
    async with consumers.feed().listening() as listener:
        listener.news.set()
        speak_by = _clock() + HEARTBEAT_INTERVAL
        while True:
            try:
                async with asyncio.timeout_at(speak_by):
                    await listener.wait()
            except TimeoutError:
                yield ": alive\n\n"
                speak_by = _clock() + HEARTBEAT_INTERVAL
            while found := await database_sync_to_async(events.after)(after):
                if not await database_sync_to_async(_may_still_read)(request):
                    return
                for event in found:
                    yield _message(event)
                after = found[-1].seq
                speak_by = _clock() + HEARTBEAT_INTERVAL


def _may_still_read(request: HttpRequest) -> bool:
    caller = consumers.caller_of(request.scope)  # type: ignore[attr-defined]
    return caller is not None and caller.may("read")


def _message(event: Event) -> str:
    data = json.dumps(EventOut.from_orm(event).model_dump(), cls=NinjaJSONEncoder)
    return f"id: {event.seq}\ndata: {data}\n\n"


def _clock() -> float:
    return asyncio.get_running_loop().time()


@admin_router.get("/tokens", response=Page[TokenOut])
def list_tokens(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    """Tokens, newest first, revoked ones included."""
    return paginate(Token.objects.all(), query, "-created_at", "name")


@admin_router.post("/tokens", response={201: NewToken})
def create_token(request: HttpRequest, data: CreateToken) -> Status[dict[str, Any]]:
    """Make a token. Its secret is in this answer and nowhere else."""
    life = timedelta(days=data.expires_in_days) if data.expires_in_days else None
    token, secret = auth.create_token(data.name, data.scope, life)
    return Status(201, TokenOut.from_orm(token).model_dump() | {"secret": secret})


@admin_router.delete("/tokens/{ref}", response={204: None})
def revoke_token(request: HttpRequest, ref: str) -> Status[None]:
    """Make a token invalid, at once and for good."""
    auth.revoke_token(resolve(Token.objects.filter(revoked_at=None), _id(ref)))
    return Status(204, None)


@admin_router.post("/sign-in-link", response=SignInLink)
def create_sign_in_link(request: HttpRequest) -> dict[str, str]:
    """A link that signs a browser in as the operator, once."""
    auth.ensure_operator()
    return {"url": auth.sign_in_link(request.build_absolute_uri("/"))}


def _id(text: str) -> NexusID:
    """The ID written as ``text``, where a name would not be clear enough."""
    if not is_id(text):
        raise Invalid(f"“{text[:80]}” is not an ID.", hint="Names are not taken here.", code="id")
    return NexusID.parse(text)

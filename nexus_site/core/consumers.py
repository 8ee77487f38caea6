"""Websockets: what changed, and logs that grow.

``/ws/events`` takes one message, ``{"after": N}`` (or ``{}``: from now), and sends a line
for each event after N for as long as it is open: ``{"seq", "subject": "vm:ID", "kind"}``.
It says only that something changed; who wants to know more asks over HTTP.

Every web process has one ``Feed``: a task that looks at the log while any socket is open.
Nothing is sent between processes, since all of them read the same table.

A log's socket takes ``{"after": OFFSET}`` and sends ``{"text", "next"}`` as the log grows.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from typing import Any, Protocol
from urllib.parse import urlsplit
from weakref import WeakKeyDictionary

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer
from django.conf import settings
from django.contrib.auth import get_user
from django.contrib.sessions.backends.db import SessionStore
from django.http import HttpRequest
from django.http.request import split_domain_port, validate_host

from nexus_site.core import auth, events
from nexus_site.core.errors import NotFound
from nexus_site.core.models import Event
from nexus_site.core.terminal import plain_text, split_unfinished

log = logging.getLogger(__name__)

Application = Callable[[Any, Any, Any], Any]

LOOK_INTERVAL = 0.1  # seconds between two looks at the event log
PULSE_EVERY = 20  # looks between two rounds of pulses
LOG_INTERVAL = 0.2  # seconds between two looks at a log
BATCH = 500
GREETING_TIMEOUT = 10.0  # seconds a client has for its first message
TAIL = 65536  # bytes of a log that a client without an offset gets first
BAD_GREETING, UNKNOWN, FORBIDDEN, MISSING, BROKEN = 4400, 4401, 4403, 4404, 1011  # close codes


# Who asks


def caller_of(scope: dict[str, Any]) -> auth.Caller | None:
    """The caller that a socket's own headers prove, looked up anew each time."""
    headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
    if authorization := headers.get("authorization", ""):
        return auth.caller_of_header(authorization)
    cookie = SimpleCookie(headers.get("cookie", "")).get(settings.SESSION_COOKIE_NAME)
    if cookie is None:
        return None
    request = HttpRequest()
    request.session = SessionStore(cookie.value)
    return auth.caller_of_user(get_user(request))


def same_origin(application: Application) -> Application:
    """Lets a browser in only from Nexus's own pages; refuses before anything is looked up.

    A cookie is sent whichever page opens the socket, and cookies are shared by all ports
    of a host, so the page's whole origin must be the address it connects to. Clients with
    a token have no cookie to be abused and need no origin.
    """

    async def guarded(scope: dict[str, Any], receive: Any, send: Any) -> Any:
        headers = dict(scope["headers"])
        if b"authorization" in headers or _is_own(headers):
            return await application(scope, receive, send)
        return await send({"type": "websocket.close", "code": FORBIDDEN})

    return guarded


def _is_own(headers: dict[bytes, bytes]) -> bool:
    origin = headers.get(b"origin", b"").decode("latin-1")
    host = headers.get(b"host", b"").decode("latin-1").lower()
    allowed = validate_host(split_domain_port(host)[0], settings.ALLOWED_HOSTS or ["localhost"])
    own = bool(host) and allowed and urlsplit(origin).netloc.lower() == host
    return own or origin in settings.CSRF_TRUSTED_ORIGINS


class Socket(AsyncWebsocketConsumer):  # type: ignore[misc]
    """A socket that waits for a greeting and then sends what ``follow`` finds.

    Whether the caller may (still) look is asked at the start and before every delivery.
    """

    async def connect(self) -> None:
        await self.accept()
        self._greeted = False
        self._work = asyncio.create_task(self._wait_for_greeting())

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """The greeting; anything after it is ignored."""
        if self._greeted:
            return
        self._greeted = True
        self._work.cancel()
        try:
            after = json.loads(text_data or "").get("after")
            after = None if after is None else int(after)
        except (ValueError, TypeError, AttributeError):
            await self.close(BAD_GREETING)
            return
        self._work = asyncio.create_task(self._serve(after))

    async def disconnect(self, code: int) -> None:
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work

    async def follow(self, after: int | None) -> None:
        """Send what comes after ``after``; returns when the caller may look no more."""
        raise NotImplementedError

    async def deliver(self, *messages: dict[str, Any]) -> bool:
        """Send ``messages`` if the caller may see them; else close and say False."""
        caller = await database_sync_to_async(caller_of)(self.scope)
        if caller is None or not caller.may("read"):
            await self.close(UNKNOWN)
            return False
        for message in messages:
            await self.send(json.dumps(message))
        return True

    async def _wait_for_greeting(self) -> None:
        if await self.deliver():
            await asyncio.sleep(GREETING_TIMEOUT)
            await self.close(BAD_GREETING)

    async def _serve(self, after: int | None) -> None:
        try:
            if await self.deliver():
                await self.follow(after)
        except NotFound:
            await self.close(MISSING)
        except Exception:
            log.exception("a websocket failed: %s", self.scope["path"])
            await self.close(BROKEN)


# Events

#: Asked every two seconds while anybody looks: the subjects (``heartbeat:ID``) of what has
#: changed since the last time without an event being written for it.
pulses: list[Callable[[], list[str]]] = []


@dataclass(eq=False)
class Listener:
    """One socket's ear: set when there is news; ``beats`` are pulses not yet sent."""

    news: asyncio.Event = field(default_factory=asyncio.Event)
    beats: set[str] = field(default_factory=set)

    async def wait(self) -> set[str]:
        """Sleep until there is news; gives the pulses among it."""
        await self.news.wait()
        self.news.clear()
        beats, self.beats = self.beats, set()
        return beats


class Feed:
    """Looks at the event log once for all sockets of this process, and wakes them."""

    def __init__(self) -> None:
        self._seq = 0
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Listener]:
        """Hear of news for as long as the block lasts; the first hearer starts the task."""
        listener = Listener()
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._tail(), name="event-feed")
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            if not self._listeners and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _tail(self) -> None:
        looks = 0
        while True:
            looks += 1
            try:
                await self._look(with_pulses=looks % PULSE_EVERY == 0)
            except Exception:
                log.exception("the event log could not be read")
                await asyncio.sleep(1)
            await asyncio.sleep(LOOK_INTERVAL)

    async def _look(self, with_pulses: bool) -> None:
        seq = await database_sync_to_async(events.last_seq)()
        beats = await database_sync_to_async(_beats)() if with_pulses else []
        if seq == self._seq and not beats:
            return
        self._seq = seq
        for listener in self._listeners:
            listener.beats.update(beats)
            listener.news.set()


def _beats() -> list[str]:
    return [subject for pulse in pulses for subject in pulse()]


_feeds: WeakKeyDictionary[asyncio.AbstractEventLoop, Feed] = WeakKeyDictionary()


def feed() -> Feed:
    """The feed of the running event loop; a process has one, tests have many."""
    return _feeds.setdefault(asyncio.get_running_loop(), Feed())


class EventConsumer(Socket):
    """``/ws/events``."""

    async def follow(self, after: int | None) -> None:
        async with feed().listening() as listener:
            seq = after
            if seq is None:
                seq = await database_sync_to_async(events.last_seq)()
            listener.news.set()
            while True:
                beats = await listener.wait()
                pulse = [{"seq": seq, "subject": it, "kind": "pulse"} for it in sorted(beats)]
                if pulse and not await self.deliver(*pulse):
                    return
                while found := await database_sync_to_async(events.after)(seq, BATCH):
                    if not await self.deliver(*map(message_of, found)):
                        return
                    seq = found[-1].seq


def message_of(event: Event) -> dict[str, Any]:
    """What a socket is told of an event."""
    return {
        "seq": event.seq,
        "subject": f"{event.subject_kind}:{event.subject_id}",
        "kind": event.kind,
    }


# Logs


class LogPage(Protocol):
    """A piece of a log, as services give it."""

    @property
    def text(self) -> str: ...
    @property
    def next_offset(self) -> int: ...


class LogConsumer(Socket):
    """Follows a log that one row has; without control sequences, offsets are those of the file."""

    def open_log(self, ref: str) -> Callable[[int], LogPage]:
        """What reads the log of ``ref`` from an offset. Raises ``NotFound``."""
        raise NotImplementedError

    async def follow(self, after: int | None) -> None:
        ref = self.scope["url_route"]["kwargs"]["ref"]
        read = await database_sync_to_async(self.open_log)(ref)
        offset, rest = -TAIL if after is None else after, ""
        while True:
            page = await database_sync_to_async(read)(offset)
            offset = page.next_offset
            if page.text:
                shown, rest = split_unfinished(rest + page.text)
                message = {"text": plain_text(shown), "next": offset - len(rest.encode())}
                if not await self.deliver(message):
                    return
            else:
                await asyncio.sleep(LOG_INTERVAL)

"""Django's ASGI handler with one thread for each request, and threads that are used again.

Django's asynchronous stack runs each of its synchronous parts in a thread by itself: a request went
there and back eight times, twice for signals. Here all of it is synchronous, at one go in one
thread; a view that is asynchronous goes on in the event loop. A new thread would open the database
anew, which for a short request is most of the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from asgiref.sync import ThreadSensitiveContext, sync_to_async
from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, ASGIRequest, get_script_prefix
from django.core.signals import request_started
from django.http import HttpRequest
from django.http.response import HttpResponseBase
from django.urls import ResolverMatch, get_resolver, set_script_prefix
from servestatic.middleware import ServeStaticMiddleware

IDLE = 8  # threads that wait for the next request; more are made as requests come
PATHS, LONG = 1024, 200  # how many paths are remembered, and from how many characters on not

Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Answer = Callable[[HttpRequest], Awaitable[HttpResponseBase]]


def _look_up(path: str) -> ResolverMatch:
    return get_resolver().resolve(path)


_resolve = lru_cache(PATHS)(_look_up)


class Handler(ASGIHandler):
    """One thread for each request that is under way, with the connections of the last one."""

    def __init__(self) -> None:
        super().__init__()
        self._idle: list[ThreadPoolExecutor] = []

    def load_middleware(self, is_async: bool = False) -> None:
        """The synchronous stack, and before it the static files, which need no thread."""
        super().load_middleware(is_async=False)
        self._answer: Answer = ServeStaticMiddleware(sync_to_async(self.get_response))

    async def handle(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        """Take one request in and answer it, unless the client hangs up before."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        with body:
            set_script_prefix(get_script_prefix(scope))
            request, refusal = self.create_request(scope, body)
            tasks = [
                asyncio.create_task(self._respond(request, refusal, send)),
                asyncio.create_task(self.listen_for_disconnect(receive)),
            ]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                ends = await asyncio.gather(*tasks, return_exceptions=True)
        for end in ends:
            if isinstance(end, Exception) and not isinstance(end, RequestAborted):
                raise end

    async def _respond(
        self, request: HttpRequest | None, refusal: HttpResponseBase | None, send: Send
    ) -> None:
        """Answer what ``create_request`` has made of the request."""
        if request is not None:
            response = await self.run_get_response(request)
        else:
            assert refusal is not None
            response = refusal
        try:
            await self.send_response(response, send)
        finally:
            if response.streaming:
                await sync_to_async(response.close)()

    def get_response(self, request: HttpRequest) -> HttpResponseBase:
        """The response, with what Django does before and after it; one that streams is closed
        when it has been sent."""
        assert isinstance(request, ASGIRequest)
        request_started.send(sender=self.__class__, scope=request.scope)
        response = super().get_response(request)
        response._handler_class = self.__class__  # type: ignore[attr-defined]
        if not response.streaming:
            response.close()
        return response

    def resolve_request(self, request: HttpRequest) -> ResolverMatch:
        """Where the request goes; the same paths come again and again."""
        path = request.path_info
        request.resolver_match = match = _resolve(path) if len(path) < LONG else _look_up(path)
        return match

    async def get_response_async(self, request: HttpRequest) -> HttpResponseBase:
        """The response, from where it is to be had."""
        return await self._answer(request)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        executor = self._idle.pop() if self._idle else ThreadPoolExecutor(1, "request")
        try:
            async with ThreadSensitiveContext(executor=executor):
                await self.handle(scope, receive, send)
        finally:
            if len(self._idle) < IDLE:
                self._idle.append(executor)
            else:
                executor.shutdown(wait=False)

"""Who asks, and how a failure is shown, for every request."""

from __future__ import annotations

from collections.abc import Callable

from django.http import HttpRequest, HttpResponse
from django.shortcuts import render

from nexus_site.core import auth, events
from nexus_site.core.errors import NexusError

GetResponse = Callable[[HttpRequest], HttpResponse]


class CallerMiddleware:
    """Sets ``request.caller`` from a bearer token or the session; history names that actor."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        caller = caller_of(request)
        request.caller = caller  # type: ignore[attr-defined]
        with events.acting(caller.actor if caller else "anonymous"):
            return self.get_response(request)


def caller_of(request: HttpRequest) -> auth.Caller | None:
    """The caller that a request's own credentials prove.

    A request with an ``Authorization`` header is judged by it alone and needs no CSRF
    token: no browser sends that header on another site's behalf.
    """
    header = request.headers.get("Authorization", "")
    if header:
        request._dont_enforce_csrf_checks = True  # type: ignore[attr-defined]
        return auth.caller_of_header(header)
    return auth.caller_of_user(request.user)


class ErrorPageMiddleware:
    """Shows a ``NexusError`` that a page raised as a page (or, to htmx, as a fragment)."""

    def __init__(self, get_response: GetResponse) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, error: Exception) -> HttpResponse | None:
        if not isinstance(error, NexusError):
            return None
        template = "_error.html" if request.htmx else "error.html"  # type: ignore[attr-defined]
        return render(request, template, {"error": error}, status=error.status)

"""How the JSON API lets callers in and how it says no: RFC 9457 problem documents.

Whatever goes wrong, from a missing token to a bug, is answered in one shape (``Problem``
in ``schemas``) made by ``NexusError.problem()``.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ClassVar, cast

from django.contrib.auth.views import redirect_to_login
from django.core.exceptions import ObjectDoesNotExist, RequestDataTooBig, SuspiciousOperation
from django.db import IntegrityError
from django.http import Http404, HttpRequest, JsonResponse
from django.http.response import HttpResponseBase
from ninja import NinjaAPI
from ninja.errors import AuthenticationError, HttpError, ValidationError
from ninja.security.base import AuthBase
from ninja.utils import check_csrf

from nexus_site.core.auth import Caller, scope_for
from nexus_site.core.errors import Conflict, Denied, Invalid, NexusError, NotFound, as_nexus_error

log = logging.getLogger(__name__)

CONTENT_TYPE = "application/problem+json"
View = Callable[..., HttpResponseBase]


class BadRequest(NexusError):
    """The request itself cannot be read."""

    status, title, default_code = 400, "Bad request", "bad-request"


class Unauthenticated(NexusError):
    """Nobody is signed in, or the token is not valid."""

    status, exit_code, title, default_code = 401, 6, "Not signed in", "not-signed-in"


class MethodNotAllowed(NexusError):
    status, title, default_code = 405, "Method not allowed", "method-not-allowed"


class TooLarge(NexusError):
    status, title, default_code = 413, "Request too large", "too-large"


class BearerToken(AuthBase):
    """Who may call an endpoint: whoever ``CallerMiddleware`` found, with the scope it needs.

    The scope is the one for the method unless ``scope`` is given. Sessions must send
    Django's CSRF token with every unsafe method; bearer tokens need none.
    """

    openapi_type: ClassVar[str] = "http"
    openapi_scheme: ClassVar[str] = "bearer"
    csrf = True  # the explorer sends the CSRF token when it sees this

    def __init__(self, scope: str = "") -> None:
        super().__init__()
        self._scope = scope

    def __call__(self, request: HttpRequest) -> Caller | None:
        caller = cast("Caller | None", request.caller)  # type: ignore[attr-defined]
        if caller is None:
            return None
        if check_csrf(request) is not None:
            raise Denied(
                "The CSRF token is missing or wrong.",
                hint="Send it as the header X-CSRFToken, or use a bearer token.",
                code="csrf",
            )
        caller.require(self._scope or scope_for(request.method or ""))
        return caller


def respond(error: NexusError) -> JsonResponse:
    """The problem document of ``error`` as an HTTP response."""
    headers = {"WWW-Authenticate": "Bearer"} if error.status == 401 else {}
    return JsonResponse(
        error.problem(), status=error.status, content_type=CONTENT_TYPE, headers=headers
    )


def unauthenticated() -> Unauthenticated:
    return Unauthenticated(
        "This needs a valid token or a signed-in session.",
        hint="Send “Authorization: Bearer nxt_…”; nexusctl finds the token of this machine itself.",
    )


def answer_with_problems(api: NinjaAPI) -> None:
    """Make every exception of ``api``'s endpoints a problem document."""
    api.add_exception_handler(NexusError, lambda _, error: respond(cast(NexusError, error)))
    for kind, translate in _TRANSLATIONS.items():
        api.add_exception_handler(kind, _handler(translate))


def with_problem_405(view: View) -> View:
    """``view`` with ninja's plain 405 turned into a problem document."""
    if iscoroutinefunction(view):
        asynchronous = cast("Callable[..., Awaitable[HttpResponseBase]]", view)

        @wraps(view)
        async def wrapper(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
            return _explain_405(request, await asynchronous(request, *args, **kwargs))

        return cast(View, wrapper)

    @wraps(view)
    def plain(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponseBase:
        return _explain_405(request, view(request, *args, **kwargs))

    return plain


def guard_docs(view: View) -> View:
    """The explorer and its schema are for callers only; a browser is sent to sign in."""

    @wraps(view)
    def guarded(request: HttpRequest, **kwargs: Any) -> HttpResponseBase:
        if request.caller is not None:  # type: ignore[attr-defined]
            return view(request, **kwargs)
        if "text/html" in request.headers.get("Accept", ""):
            return redirect_to_login(request.get_full_path())
        return respond(unauthenticated())

    return guarded


def _explain_405(request: HttpRequest, response: HttpResponseBase) -> HttpResponseBase:
    if response.status_code != 405:
        return response
    allowed = ", ".join(sorted(response.headers["Allow"].split(", ")))
    error = MethodNotAllowed(f"{request.method} is not possible here; {allowed} is.")
    answer = respond(error)
    answer.headers["Allow"] = allowed
    return answer


def _handler(
    translate: Callable[[Any], NexusError],
) -> Callable[[HttpRequest, Any], JsonResponse]:
    return lambda _, error: respond(translate(error))


def _of_http_error(error: HttpError) -> NexusError:
    """Ninja raises this for one thing only: a body that it cannot parse."""
    return BadRequest(
        "The body of the request is not JSON.",
        detail=str(error.__cause__ or ""),
        code="malformed-json",
    )


def _of_validation(error: ValidationError) -> NexusError:
    fields = [{"field": _field(e["loc"]), "message": e["msg"]} for e in error.errors]
    text = "; ".join(f"{each['field']}: {each['message']}" for each in fields)
    return Invalid(text, code="validation", extra={"errors": fields})


def _field(location: tuple[str | int, ...]) -> str:
    """``("body", "<argument>", "name")`` and ``("query", "limit")`` as people write them."""
    path = location[2:] if location[0] == "body" else location[1:]
    return ".".join(str(part) for part in path) or "body"


def _of_race(error: IntegrityError | ObjectDoesNotExist) -> NexusError:
    """A row came, or went, between two looks of a request."""
    log.warning("two requests at once", exc_info=error)
    return Conflict(
        "Another request changed the same thing at this moment.",
        hint="Look at how it is now, then try again.",
        code="race",
    )


def _of_bug(error: Exception) -> NexusError:
    log.exception("the API failed", exc_info=error)
    return as_nexus_error(error)


_TRANSLATIONS: dict[type[Exception], Callable[[Any], NexusError]] = {
    AuthenticationError: lambda _: unauthenticated(),
    HttpError: _of_http_error,
    ValidationError: _of_validation,
    Http404: lambda _: NotFound("There is nothing here."),
    RequestDataTooBig: lambda _: TooLarge("The body of the request is too large."),
    SuspiciousOperation: lambda error: BadRequest(str(error)),
    IntegrityError: _of_race,
    ObjectDoesNotExist: _of_race,
    Exception: _of_bug,
}

"""Page or fragment: what all HTML views share.

A page is made of fragments, ``templates/<app>/_<name>.html``, each one element with the id
``<app>-<name>``. They are fetched at the page's own URL, from the same context: one that a
link or a form swaps is named in ``HX-Target``; those that an event has made stale are all
named in ``Nexus-Fragments`` and come in one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec
from urllib.parse import urlencode

from django.contrib import messages
from django.http import HttpRequest, HttpResponse, HttpResponseBase
from django.shortcuts import redirect, render
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.cache import patch_vary_headers
from django_htmx.middleware import HtmxDetails

from nexus_site.core import events
from nexus_site.core.auth import Caller, scope_for
from nexus_site.core.models import Operation

P = ParamSpec("P")


class Request(HttpRequest):
    """A request as views get it: behind the middleware, from somebody who may ask."""

    caller: Caller
    htmx: HtmxDetails
    last_seq: int


View = Callable[Concatenate[Request, P], HttpResponseBase]


def page(scope: str = "") -> Callable[[View[P]], Callable[..., HttpResponseBase]]:
    """A view for signed-in callers only; others are sent to sign in.

    ``scope`` is what the caller needs, by default what the method needs (GET: read).
    """

    def decorate(view: View[P]) -> Callable[..., HttpResponseBase]:
        @wraps(view)
        def guarded(request: Request, *args: P.args, **kwargs: P.kwargs) -> HttpResponseBase:
            if getattr(request, "caller", None) is None:
                return _to_sign_in(request)
            request.caller.require(scope or scope_for(request.method or "GET"))
            # Read before the view looks at anything: what changes meanwhile is then
            # after this number, and the page's socket is told of it.
            request.last_seq = 0 if request.htmx else events.last_seq()
            return view(request, *args, **kwargs)

        return guarded

    return decorate


def _to_sign_in(request: Request) -> HttpResponse:
    here = request.htmx.current_url_abs_path if request.htmx else request.get_full_path()
    url = f"{reverse('sign-in')}?{urlencode({'next': here or '/'})}"
    return HttpResponse(status=204, headers={"HX-Redirect": url}) if request.htmx else redirect(url)


def render_page(
    request: HttpRequest,
    template: str,
    context: Mapping[str, Any] | None = None,
    *,
    fragments: Sequence[str] = (),
    status: int = 200,
) -> HttpResponse:
    """The page, or those of its ``fragments`` (template names) that were asked for."""
    known = {fragment_id(name): name for name in fragments}
    values = dict(context or {})
    stale = [name for name in request.headers.get("Nexus-Fragments", "").split() if name in known]
    if stale:
        parts = [_partial(request, name, known[name], values) for name in stale]
        response = HttpResponse("".join(parts))
    else:
        target = request.headers.get("HX-Target", "").rpartition("#")[2]
        response = render(request, known.get(target, template), values, status=status)
    response["Cache-Control"] = "no-store"
    patch_vary_headers(response, ["HX-Request", "HX-Target", "Nexus-Fragments"])
    return response


def _partial(request: HttpRequest, element: str, template: str, context: dict[str, Any]) -> str:
    """A fragment wrapped so that htmx morphs the element it is."""
    html = render_to_string(template, context, request)
    return f'<hx-partial hx-target="#{element}" hx-swap="outerMorph">{html}</hx-partial>'


def fragment_id(template: str) -> str:
    """The id of the element that a fragment is: ``vms/_history.html`` is ``vms-history``."""
    return template.removesuffix(".html").replace("/_", "-").replace("/", "-").lstrip("_")


def toast(request: Request, text: str, *, operation: Operation | None = None) -> HttpResponse:
    """The answer to an action that leaves the page as it is: a note in the corner.

    With ``operation`` the note follows it to its end. Without htmx: back to the page.
    """
    if not request.htmx:
        messages.success(request, text)
        return redirect(_came_from(request))
    response = render(request, "_toast.html", {"text": text, "operation": operation})
    response["HX-Retarget"] = "#toasts"
    response["HX-Reswap"] = "beforeend"
    return response


def go_to(request: Request, url: str, text: str = "") -> HttpResponse:
    """The answer to an action that ends at another page, with a note shown there."""
    if text:
        messages.success(request, text)
    if request.htmx:
        return HttpResponse(status=204, headers={"HX-Redirect": url})
    return redirect(url)


def _came_from(request: HttpRequest) -> str:
    """The path of the page that the request was made from; nothing of another site."""
    origin = f"{request.scheme}://{request.get_host()}"
    referrer = request.headers.get("Referer", "")
    return referrer.removeprefix(origin) if referrer.startswith(origin + "/") else "/"

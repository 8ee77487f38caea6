"""Dialogs that a button fetches: one address asks with GET and does with POST.

What is refused is said in the dialog, which stays. Without htmx the same is a page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from django.http import HttpResponse
from django.shortcuts import render
from django.utils.cache import patch_vary_headers

from nexus_site.core.errors import NexusError
from nexus_site.core.forms import ServiceForm
from nexus_site.core.htmx import Request
from nexus_site.core.models import Operation
from nexus_site.core.operations import rehearse


@dataclass(frozen=True)
class Listed:
    """Things that the dialog names, such as what would be lost."""

    title: str
    names: Sequence[str]


@dataclass(frozen=True)
class Dialog:
    """What a dialog asks.

    ``button`` is what it does, in a word. ``plan`` is the call that is rehearsed to show its
    steps; what it refuses is shown in their place, and the button says no.
    """

    title: str
    button: str
    text: str = ""
    danger: bool = False
    lists: Sequence[Listed] = ()
    plan: Callable[[], Operation] | None = None

    def answer(
        self,
        request: Request,
        submit: Callable[[dict[str, Any]], HttpResponse],
        form: Callable[..., ServiceForm] = ServiceForm,
        initial: dict[str, Any] | None = None,
    ) -> HttpResponse:
        """The dialog; once it is sent and the form is fine, what ``submit`` answers."""
        posted = request.method == "POST"
        shown = form(request.POST if posted else None, initial=initial, auto_id="dialog_%s")
        status = 200
        if posted:
            status = 422
            if shown.is_valid():
                try:
                    return submit(shown.cleaned_data)
                except NexusError as error:
                    shown.refuse(error)
                    status = error.status
        return self._shown(request, shown, status)

    def _shown(self, request: Request, form: ServiceForm, status: int) -> HttpResponse:
        context: dict[str, Any] = {"dialog": self, "form": form}
        if self.plan is not None and not form.is_bound:
            try:
                context["steps"] = rehearse(self.plan)["steps"]
            except NexusError as error:
                context["refusal"] = error
        template = "_dialog.html" if request.htmx else "dialog.html"
        response = render(request, template, context, status=status)
        response["Cache-Control"] = "no-store"
        patch_vary_headers(response, ["HX-Request"])
        return response

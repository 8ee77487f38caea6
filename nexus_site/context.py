"""What every page knows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import NoReverseMatch, reverse

from nexus_site.core.operations import open_operations
from nexusctl import __version__


def nexus(request: HttpRequest) -> dict[str, Any]:
    """``caller``: who looks, or None. ``seq``: the last event that the page has seen.

    Callables are called only where a template uses them.
    """
    return {
        "caller": getattr(request, "caller", None),
        "seq": getattr(request, "last_seq", 0),
        "version": __version__,
        "running_operations": lambda: open_operations().count(),
        "api_docs": _api_docs,
    }


def _api_docs() -> str:
    try:
        return reverse("api:openapi-view")
    except NoReverseMatch:
        return ""

"""What every page knows."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest


def nexus(request: HttpRequest) -> dict[str, Any]:
    """``caller``: who looks at the page, or None."""
    return {"caller": getattr(request, "caller", None)}

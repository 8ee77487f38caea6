"""Where root file systems and kernels come from."""

from __future__ import annotations

from images.providers.base import RootfsProvider
from images.providers.embedded import EmbeddedProvider
from nexus_site.core.errors import NotFound


def all_providers() -> list[RootfsProvider]:
    """Every provider of root file systems, the one that needs no network first."""
    return [EmbeddedProvider()]


def provider(name: str) -> RootfsProvider:
    """The provider of this name; ``NotFound`` names those that there are."""
    known = {candidate.name: candidate for candidate in all_providers()}
    if name not in known:
        raise NotFound(
            f"There is no provider “{name}” of root file systems.",
            hint=f"Known: {', '.join(known)}",
        )
    return known[name]

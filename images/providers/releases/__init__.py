"""Where releases of Firecracker come from; providers know no models."""

from __future__ import annotations

from images.providers.releases.base import (
    FIRECRACKER,
    JAILER,
    FetchedRelease,
    ReleaseOffer,
    ReleaseProvider,
)
from images.providers.releases.github import BASE_URL, GitHubProvider
from images.providers.releases.local import LocalProvider
from images.providers.releases.wheel import WheelProvider
from nexus_site.core.errors import Invalid

NAMES = ("github", "wheel", "local")
DEFAULT = "github"

__all__ = [
    "DEFAULT",
    "FIRECRACKER",
    "JAILER",
    "NAMES",
    "FetchedRelease",
    "ReleaseOffer",
    "ReleaseProvider",
    "open_providers",
    "provider_called",
]


def open_providers(base_url: str = BASE_URL) -> list[ReleaseProvider]:
    """All of them; ``base_url`` is where GitHub's API, or a mirror of it, is."""
    return [GitHubProvider(base_url), WheelProvider(), LocalProvider()]


def provider_called(name: str, base_url: str) -> ReleaseProvider:
    """The provider of this name; ``Invalid`` names those that there are."""
    for provider in open_providers(base_url):
        if provider.name == name:
            return provider
    raise Invalid(
        f"There is no provider “{name[:40]}” of Firecracker releases.",
        hint=f"There are: {', '.join(NAMES)}",
        code="release-provider",
    )

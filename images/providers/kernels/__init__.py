"""Where kernels come from; providers know no models."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.providers.kernels.anvil import AnvilProvider
from images.providers.kernels.distro import DistroProvider
from images.providers.kernels.embedded import EmbeddedKernels
from images.providers.kernels.local import LocalKernels
from images.providers.releases.base import ReleaseProvider
from nexus_site.core.errors import Invalid

NAMES = ("anvil", "distro", "embedded", "local")
DEFAULT = "anvil"

__all__ = ["DEFAULT", "NAMES", "kernel_provider_called", "open_kernel_providers"]


def open_kernel_providers(
    base_url: str = "", keyring: Path | None = None, allowed: Sequence[Path] = (Path("/"),)
) -> list[ReleaseProvider]:
    """All of them: where kernels are released and by whom, and where local ones may be."""
    return [
        AnvilProvider(base_url, keyring),
        DistroProvider(allowed),
        EmbeddedKernels(),
        LocalKernels(allowed),
    ]


def kernel_provider_called(name: str, providers: Sequence[ReleaseProvider]) -> ReleaseProvider:
    """The provider of this name; ``Invalid`` names those that there are."""
    for provider in providers:
        if provider.name == name:
            return provider
    raise Invalid(
        f"There is no provider “{name[:40]}” of kernels.",
        hint=f"There are: {', '.join(NAMES)}",
        code="kernel-provider",
    )

"""Where root file systems and kernels come from.

Each module of a provider has a ``TYPE``; providers know no models and are given plain values.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from images.providers import alpine, debian, embedded, tarball
from images.providers.base import ProviderType, RootfsProvider
from nexus_site.core.errors import Invalid

TYPES: dict[str, ProviderType] = {
    type_.name: type_
    for type_ in (embedded.TYPE, alpine.TYPE, debian.TYPE, tarball.TYPE, tarball.OCI_TYPE)
}


def provider_type(name: str) -> ProviderType:
    """The type of this name; ``Invalid`` names those that there are."""
    if name not in TYPES:
        raise Invalid(
            f"There is no type “{name}” of providers.",
            hint=f"Known: {', '.join(TYPES)}",
            code="provider-type",
        )
    return TYPES[name]


def open_provider(name: str, type_name: str, config: Mapping[str, Any]) -> RootfsProvider:
    """The provider of a row with these values."""
    return provider_type(type_name).open(name, config)

"""Which kernels could be had, and from whom."""

from __future__ import annotations

from django.conf import settings
from django.db import transaction

from images.providers.kernels import kernel_provider_called, open_kernel_providers
from images.providers.releases import ReleaseProvider
from images.services.remembered import ReleaseOffers, Remembered
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Step

KEY = "kernel.offers"


def list_kernel_offers() -> ReleaseOffers:
    """What can be had for this host, as far as it is known; one query."""
    return _shelf.offers()


@transaction.atomic
def refresh_kernels() -> Operation:
    """Ask the publishers which kernels there are now."""
    return open_operation("kernel.refresh", "Ask which kernels there are")


def kernel_provider(name: str) -> ReleaseProvider:
    """The provider of this name; ``Invalid`` names those that there are."""
    return kernel_provider_called(name, _providers())


# What workers run


def refresh_plan(operation: Operation) -> Plan:
    return [Step("ask", "Ask the publishers", _shelf.ask)]


def _providers() -> list[ReleaseProvider]:
    nexus = settings.NEXUS
    return open_kernel_providers(
        nexus.anvil_releases_url, nexus.anvil_releases_keyring, nexus.kernel_paths
    )


_shelf = Remembered(KEY, "kernel.refreshed", _providers)

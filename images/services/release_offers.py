"""Which releases of Firecracker could be had."""

from __future__ import annotations

from django.conf import settings
from django.db import transaction

from images.providers.releases import ReleaseProvider, open_providers, provider_called
from images.services.remembered import ReleaseOffers, Remembered
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Step

KEY = "firecracker.offers"


def list_release_offers() -> ReleaseOffers:
    """What can be had for this host, as far as it is known; one query."""
    return _shelf.offers()


@transaction.atomic
def refresh_releases() -> Operation:
    """Ask the publishers which releases of Firecracker there are now."""
    return open_operation("firecracker.refresh", "Ask which releases of Firecracker there are")


def release_provider(name: str) -> ReleaseProvider:
    """The provider of this name; ``Invalid`` names those that there are."""
    return provider_called(name, settings.NEXUS.firecracker_releases_url)


# What workers run


def refresh_plan(operation: Operation) -> Plan:
    return [Step("ask", "Ask the publisher", _shelf.ask)]


def _providers() -> list[ReleaseProvider]:
    return open_providers(settings.NEXUS.firecracker_releases_url)


_shelf = Remembered(KEY, "release.refreshed", _providers)

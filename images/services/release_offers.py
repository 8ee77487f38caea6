"""Which releases of Firecracker could be had: remembered, so that no page waits for a network."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from images.providers.releases import (
    ReleaseOffer,
    ReleaseProvider,
    open_providers,
    provider_called,
)
from images.services.places import host_arch
from nexus_site.core import events
from nexus_site.core.errors import NexusError
from nexus_site.core.models import Operation, Setting
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

KEY = "firecracker.offers"


@dataclass(frozen=True)
class ReleaseOffers:
    """``refreshed_at``: when the publishers were asked last, None for never. ``problem``: why
    asking them failed then; empty if it did not."""

    offers: list[ReleaseOffer]
    refreshed_at: datetime | None = None
    problem: str = ""


def list_release_offers() -> ReleaseOffers:
    """What can be had for this host, as far as it is known; one query."""
    kept = Setting.objects.filter(pk=KEY).first()
    value: dict[str, Any] = kept.value if kept else {"at": "", "offers": [], "problem": ""}
    arch = host_arch()
    own = [offer for provider in _providers() for offer in provider.offers(arch)]
    remembered = [ReleaseOffer(**offer) for offer in value["offers"]]
    offers = [*(offer for offer in remembered if offer.arch == arch), *own]
    return ReleaseOffers(offers, parse_datetime(value["at"]), value["problem"])


@transaction.atomic
def refresh_releases() -> Operation:
    """Ask the publishers which releases of Firecracker there are now."""
    return open_operation("firecracker.refresh", "Ask which releases of Firecracker there are")


def release_provider(name: str) -> ReleaseProvider:
    """The provider of this name; ``Invalid`` names those that there are."""
    return provider_called(name, settings.NEXUS.firecracker_releases_url)


# What workers run


def refresh_plan(operation: Operation) -> Plan:
    return [Step("ask", "Ask the publisher", _refresh)]


def _refresh(run: Run) -> str:
    arch = host_arch()
    try:
        found = [
            offer
            for provider in _providers()
            for offer in provider.refresh(arch)
            if offer not in provider.offers(arch)
        ]
    except NexusError as error:
        _remember(None, error.text)
        raise
    with transaction.atomic():
        _remember(found)
        events.append("release.refreshed", run.operation, offers=len(found))
    return f"{len(found)} releases"


def _remember(offers: list[ReleaseOffer] | None, problem: str = "") -> None:
    """Keep what was said; where nothing was, what was said before and why."""
    before = Setting.objects.filter(pk=KEY).first()
    value = dict(before.value) if before else {"at": "", "offers": []}
    value["problem"] = problem[:500]
    if offers is not None:
        value |= {"at": timezone.now().isoformat(), "offers": [asdict(one) for one in offers]}
    Setting.objects.update_or_create(pk=KEY, defaults={"value": value})


def _providers() -> list[ReleaseProvider]:
    return open_providers(settings.NEXUS.firecracker_releases_url)

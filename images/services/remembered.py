"""What providers could deliver when they were asked last: no page waits for a network."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

from django.db import transaction
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from images.providers.releases import ReleaseOffer, ReleaseProvider
from images.services.places import host_arch
from nexus_site.core import events
from nexus_site.core.errors import NexusError
from nexus_site.core.models import Setting
from nexus_site.core.steps import Run


@dataclass(frozen=True)
class ReleaseOffers:
    """``refreshed_at``: when the publishers were asked last, None for never. ``problem``: why
    asking them failed then; empty if it did not."""

    offers: list[ReleaseOffer]
    refreshed_at: datetime | None = None
    problem: str = ""


@dataclass(frozen=True)
class Remembered:
    """The offers of some providers, kept under ``key``; ``event`` says that they were asked."""

    key: str
    event: str
    providers: Callable[[], Sequence[ReleaseProvider]]

    def offers(self) -> ReleaseOffers:
        """What can be had for this host, as far as it is known; one query."""
        kept = Setting.objects.filter(pk=self.key).first()
        value: dict[str, Any] = kept.value if kept else {"at": "", "offers": [], "problem": ""}
        arch = host_arch()
        own = [offer for provider in self.providers() for offer in provider.offers(arch)]
        remembered = [ReleaseOffer(**offer) for offer in value["offers"]]
        offers = [*(offer for offer in remembered if offer.arch == arch), *own]
        return ReleaseOffers(offers, parse_datetime(value["at"]), value["problem"])

    def ask(self, run: Run) -> str:
        """Ask all of them; the step of an operation. Those that answer are kept in any case."""
        found: list[ReleaseOffer] = []
        failed: NexusError | None = None
        silent: set[str] = set()
        for provider in self.providers():
            run.check()
            try:
                found += self._news(provider)
            except NexusError as error:
                silent.add(provider.name)
                failed = failed or error
        self._remember(found, silent, failed.text if failed else "")
        if failed is not None:
            raise failed
        with transaction.atomic():
            events.append(self.event, run.operation, offers=len(found))
        return f"{len(found)} offers"

    @staticmethod
    def _news(provider: ReleaseProvider) -> list[ReleaseOffer]:
        arch = host_arch()
        own = provider.offers(arch)
        return [offer for offer in provider.refresh(arch) if offer not in own]

    def _remember(self, offers: list[ReleaseOffer], silent: set[str], problem: str) -> None:
        """Keep what was said; of those that could not be asked, what they said before."""
        before = Setting.objects.filter(pk=self.key).first()
        value: dict[str, Any] = dict(before.value) if before else {"at": "", "offers": []}
        old = [one for one in value["offers"] if one["provider"] in silent]
        value |= {"offers": [*map(asdict, offers), *old], "problem": problem[:500]}
        if not silent:
            value["at"] = timezone.now().isoformat()
        Setting.objects.update_or_create(pk=self.key, defaults={"value": value})

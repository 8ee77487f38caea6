"""What the enabled providers can deliver, answered from their rows: no network here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, fields
from typing import Any

from images import providers
from images.models import Provider
from images.providers.base import RootfsOffer, RootfsProvider, best_offer
from images.services.places import host_arch
from nexus_site.core.errors import NexusError, NotFound

_FIELDS = frozenset(field.name for field in fields(RootfsOffer))


def list_rootfs_offers() -> list[RootfsOffer]:
    """What the providers can deliver for this host's architecture, as far as it is known."""
    return [offer for row in _enabled() for offer in offers_of(row)]


def find_rootfs(distro: str, version: str, provider: str = "") -> RootfsOffer:
    """The offer of a distribution's version, of the first provider that has it.

    Where none is known to have it but one might, its offer is tentative: ``filename`` is
    empty, and whoever fetches it asks the provider. ``NotFound`` names what is available.
    """
    rows = [row for row in _enabled() if provider in ("", row.name)]
    for row in rows:
        if offer := best_offer(offers_of(row), distro, version):
            return offer
    for row in rows:
        if _serves(row, distro.lower()):
            return RootfsOffer(distro.lower(), version, host_arch(), row.name, "", None, "")
    raise not_available(distro, version)


def not_available(distro: str, version: str) -> NotFound:
    """The error for a wish that no provider can fulfil."""
    available = [f"{offer.distro} {offer.version}" for offer in list_rootfs_offers()]
    return NotFound(
        f"There is no root file system “{distro} {version}”.",
        hint=f"Available: {', '.join(dict.fromkeys(available)) or 'nothing'}",
        code="rootfs-not-found",
        extra={"available": list(dict.fromkeys(available))},
    )


def open_row(row: Provider) -> RootfsProvider:
    """What does the work for a provider's row."""
    return providers.open_provider(row.name, row.type, row.config)


def offers_of(row: Provider) -> list[RootfsOffer]:
    """What a row can deliver for this host: what it knows itself, and what it said last."""
    try:
        own = list(open_row(row).offers())
    except NexusError:  # a type or a configuration of another version of Nexus
        return []
    offers = {_key(offer): offer for offer in (*remembered(row), *own)}
    return [offer for offer in offers.values() if offer.arch == host_arch()]


def remembered(row: Provider) -> list[RootfsOffer]:
    """What the provider said it had when it was asked last."""
    return [_offer(values, row.name) for values in row.offers]


def remember(row: Provider, offers: Iterable[RootfsOffer], *, replace: bool) -> None:
    """Keep what the provider said, except what it knows without being asked."""
    own = {_key(offer) for offer in open_row(row).offers()}
    before = [] if replace else remembered(row)
    known = {_key(offer): offer for offer in (*before, *offers) if _key(offer) not in own}
    row.offers = [asdict(offer) for offer in known.values()]
    Provider.objects.filter(pk=row.pk).update(offers=row.offers)


def _serves(row: Provider, distro: str) -> bool:
    try:
        return open_row(row).serves(distro)
    except NexusError:  # as in offers_of
        return False


def _enabled() -> list[Provider]:
    return list(Provider.objects.filter(enabled=True))


def _key(offer: RootfsOffer) -> tuple[str, str, str]:
    return offer.distro, offer.version, offer.arch


def _offer(values: Mapping[str, Any], provider: str) -> RootfsOffer:
    """An offer as kept in a row, whatever the provider was called when it was kept."""
    known = {name: value for name, value in values.items() if name in _FIELDS}
    return RootfsOffer(
        **known | {"provider": provider, "aliases": tuple(values.get("aliases", ()))}
    )

"""The rules about root file systems: where they come from, and what is kept here."""

from __future__ import annotations

from pathlib import Path

from django.db import transaction

from images import providers
from images.models import Rootfs
from images.providers.base import RootfsOffer
from images.services.places import assets_dir, host_arch, rootfs_dir
from nexus_site.core import events
from nexus_site.core.errors import NotFound
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


def list_rootfs_offers() -> list[RootfsOffer]:
    """What the providers can deliver for this host's architecture."""
    offers = [offer for provider in providers.all_providers() for offer in provider.list()]
    return [offer for offer in offers if offer.arch == host_arch()]


def find_rootfs(distro: str, version: str) -> RootfsOffer:
    """The offer of a distribution's version; ``NotFound`` names what is available."""
    offers = list_rootfs_offers()
    for offer in offers:
        if (offer.distro, offer.version) == (distro.lower(), version):
            return offer
    available = ", ".join(f"{offer.distro} {offer.version}" for offer in offers) or "nothing"
    raise NotFound(
        f"There is no root file system “{distro} {version}”.",
        hint=f"Available: {available}",
        code="rootfs-not-found",
        extra={"available": [f"{offer.distro} {offer.version}" for offer in offers]},
    )


def installed_rootfs(distro: str, version: str) -> Rootfs | None:
    """The root file system kept here, if it is."""
    return Rootfs.objects.filter(distro=distro.lower(), version=version, arch=host_arch()).first()


@transaction.atomic
def download_rootfs(distro: str, version: str) -> Operation:
    """Fetch a root file system so that templates can use it."""
    offer = find_rootfs(distro, version)
    return open_operation(
        "rootfs.download",
        f"Fetch {offer.distro.capitalize()} {offer.version}",
        params={"distro": offer.distro, "version": offer.version},
    )


def ensure_rootfs(distro: str, version: str, run: Run) -> Rootfs:
    """The root file system, fetched now if it is not here; safe to repeat."""
    kept = installed_rootfs(distro, version)
    if kept is not None and rootfs_path(kept).exists():
        return kept
    offer = find_rootfs(distro, version)
    provider = providers.provider(offer.provider)
    directory = rootfs_dir()
    directory.mkdir(parents=True, exist_ok=True)
    fetched = provider.fetch(offer, directory, lambda done, size: run.progress(done / max(size, 1)))
    with transaction.atomic():
        rootfs, _ = Rootfs.objects.update_or_create(
            distro=offer.distro,
            version=offer.version,
            arch=offer.arch,
            defaults={
                "provider": offer.provider,
                "format": fetched.format,
                "filename": str(fetched.path.relative_to(assets_dir())),
                "sha256": fetched.sha256,
                "size_bytes": fetched.size_bytes,
            },
        )
        events.append("rootfs.created", rootfs, distro=rootfs.distro, version=rootfs.version)
    return rootfs


def rootfs_path(rootfs: Rootfs) -> Path:
    """The archive as its publisher ships it."""
    return assets_dir() / rootfs.filename


# What workers run


def download_plan(operation: Operation) -> Plan:
    return [Step("fetch", "Fetch the root file system", _fetch, done=_fetched)]


def _fetched(run: Run) -> str | None:
    kept = installed_rootfs(run.params["distro"], run.params["version"])
    return f"{kept} is there" if kept and rootfs_path(kept).exists() else None


def _fetch(run: Run) -> str:
    rootfs = ensure_rootfs(run.params["distro"], run.params["version"], run)
    run.keep(rootfs=rootfs.ref)
    return f"{rootfs}, {rootfs.size_bytes / 1e6:.0f} MB"

"""The rules about root file systems: fetched, kept as published, verified, deleted."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import ProtectedError
from django.utils import timezone

from images.models import Provider, Rootfs
from images.providers.base import FetchedRootfs, RootfsOffer, best_offer, is_version, version_key
from images.services.offers import (
    find_rootfs,
    list_rootfs_offers,
    not_available,
    open_row,
    remember,
)
from images.services.places import assets_dir, host_arch, rootfs_dir
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, Invalid
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step

#: A slow line may take as long as this for one file.
DEADLINE = timedelta(hours=6)
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,39}")
_READ_STEP = 4 << 20


def installed_rootfs(distro: str, version: str, provider: str = "") -> Rootfs | None:
    """The root file system kept here that is meant by ``version``, if there is one.

    “3.23” means 3.23 or the newest 3.23.x; of several, the first provider's in their order.
    """
    kept = Rootfs.objects.filter(distro=distro.lower(), arch=host_arch())
    rows = [row for row in kept if provider in ("", row.provider)]
    matching = [row for row in rows if is_version(row.version, version)]
    if rows and not matching and (meant := _meant_by(distro, version, provider)):
        matching = [row for row in rows if row.version == meant]
    if not matching:
        return None
    order = {name: at for at, name in enumerate(Provider.objects.values_list("name", flat=True))}
    first = min(order.get(row.provider, len(order)) for row in matching)
    best = [row for row in matching if order.get(row.provider, len(order)) == first]
    exact = [row for row in best if row.version.lower() == version.lower()]
    return max(exact or best, key=lambda row: version_key(row.version))


@transaction.atomic
def download_rootfs(distro: str, version: str, provider: str = "") -> Operation:
    """Fetch a root file system so that templates can use it."""
    offer = find_rootfs(distro, version, provider)
    return open_operation(
        "rootfs.download",
        f"Fetch {offer.distro.capitalize()} {offer.version}",
        params={"distro": offer.distro, "version": offer.version, "provider": provider},
        deadline=DEADLINE,
    )


def ensure_rootfs(distro: str, version: str, run: Run, provider: str = "") -> Rootfs:
    """The root file system, fetched now if it is not here; safe to repeat."""
    kept = installed_rootfs(distro, version, provider)
    if kept is not None and rootfs_path(kept).exists():
        return kept
    if kept is not None:  # only its file is gone: the same one must come back
        distro, version, provider = kept.distro, kept.version, kept.provider
    row, offer = _certain(find_rootfs(distro, version, provider))
    kept = _row_of(offer)
    if kept is not None and rootfs_path(kept).exists():
        return kept
    directory = keeping_place(offer)
    fetched = open_row(row).fetch(
        offer, directory, lambda done, size: run.progress(done / size if size else None)
    )
    return keep(offer, fetched)


def verify_rootfs(rootfs: Rootfs) -> Operation:
    """Read the file again and compare its checksum with the one of the day it came."""
    return open_operation(
        "rootfs.verify",
        f"Verify {rootfs}",
        subject=rootfs,
        params={"rootfs": rootfs.ref},
        deadline=DEADLINE,
    )


@transaction.atomic
def delete_rootfs(rootfs: Rootfs) -> None:
    """Delete a root file system. Raises ``Conflict`` with what was made from it."""
    events.append("rootfs.deleted", rootfs, distro=rootfs.distro, version=rootfs.version)
    path = rootfs_path(rootfs)
    try:
        Rootfs.objects.get(pk=rootfs.pk).delete()
    except ProtectedError as error:
        users = sorted({_user_name(row) for row in error.protected_objects})
        raise Conflict(
            f"{rootfs} is used by {', '.join(users[:20])}.",
            hint="Delete them first.",
            code="rootfs-used",
            extra={"used_by": users},
        ) from error
    transaction.on_commit(lambda: _remove_file(path))


def rootfs_path(rootfs: Rootfs) -> Path:
    """The archive as its publisher ships it."""
    return assets_dir() / rootfs.filename


def keep_config(rootfs: Rootfs, config: Mapping[str, Any]) -> None:
    """What a container image says about itself, known once it has been unpacked."""
    if config and rootfs.config != config:
        rootfs.config = dict(config)
        rootfs.save(update_fields=["config"])


def keeping_place(offer: RootfsOffer) -> Path:
    """The directory for this offer's file and no other's; made if need be."""
    words = (offer.provider, offer.distro, offer.version, offer.arch)
    for word in words:
        if not _WORD.fullmatch(word):
            raise Invalid(f"“{word[:80]}” cannot be a part of a rootfs's name.", code="rootfs-name")
    directory = rootfs_dir() / offer.provider / "-".join(words[1:])
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def _meant_by(distro: str, version: str, provider: str) -> str:
    """The version that a provider calls by the alias ``version``; empty where none does."""
    offers = [o for o in list_rootfs_offers() if provider in ("", o.provider) and o.aliases]
    best = best_offer(offers, distro, version)
    return best.version if best else ""


def _certain(offer: RootfsOffer) -> tuple[Provider, RootfsOffer]:
    """The offer's row, and the offer itself after asking the provider where that is needed."""
    row = Provider.objects.get(name=offer.provider)
    if offer.filename:
        return row, offer
    found = open_row(row).find(offer.distro, offer.version, offer.arch)
    if found is None:
        raise not_available(offer.distro, offer.version)
    remember(row, [found], replace=False)
    return row, found


def _row_of(offer: RootfsOffer) -> Rootfs | None:
    return Rootfs.objects.filter(
        distro=offer.distro, version=offer.version, arch=offer.arch, provider=offer.provider
    ).first()


@transaction.atomic
def keep(offer: RootfsOffer, fetched: FetchedRootfs) -> Rootfs:
    """The row of what was fetched; a row that is there already must be of the same content."""
    rootfs, created = Rootfs.objects.get_or_create(
        distro=offer.distro,
        version=offer.version,
        arch=offer.arch,
        provider=offer.provider,
        defaults={
            "format": fetched.format,
            "filename": str(fetched.path.relative_to(assets_dir())),
            "sha256": fetched.sha256,
            "size_bytes": fetched.size_bytes,
            "source": fetched.source[:500],
            "verification": fetched.verification[:200],
            "verified_at": timezone.now(),
            "config": dict(fetched.config),
        },
    )
    if created:
        events.append("rootfs.created", rootfs, distro=rootfs.distro, version=rootfs.version)
    elif rootfs.sha256 != fetched.sha256:
        raise Conflict(
            f"{rootfs} is another file than before at {offer.provider}.",
            detail=f"before: sha256 {rootfs.sha256}\nnow: sha256 {fetched.sha256}",
            hint="A rootfs never changes. Delete this one first if you want the new file.",
            code="rootfs-changed",
        )
    return rootfs


def _user_name(row: object) -> str:
    meta = getattr(row, "_meta", None)
    return f"{meta.verbose_name if meta else 'row'} {row}"


def _remove_file(path: Path) -> None:
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # others are in there, or it is the common directory
        path.parent.rmdir()


# What workers run


def download_plan(operation: Operation) -> Plan:
    return [Step("fetch", "Fetch the root file system", _fetch, done=_fetched)]


def verify_plan(operation: Operation) -> Plan:
    return [Step("verify", "Read the file and compare its checksum", _verify)]


def _fetched(run: Run) -> str | None:
    kept = installed_rootfs(
        run.params["distro"], run.params["version"], run.params.get("provider", "")
    )
    if kept is None or not rootfs_path(kept).exists():
        return None
    if not run.operation.ended and run.operation.started_at:
        run.keep(rootfs=kept.ref)
    return f"{kept} is there"


def _fetch(run: Run) -> str:
    rootfs = ensure_rootfs(
        run.params["distro"], run.params["version"], run, run.params.get("provider", "")
    )
    run.keep(rootfs=rootfs.ref)
    return f"{rootfs}, {rootfs.size_bytes / 1e6:.0f} MB"


def _verify(run: Run) -> str:
    rootfs = Rootfs.objects.get(pk=NexusID.parse(run.params["rootfs"]))
    found = _digest(rootfs, run)
    damaged = found != rootfs.sha256
    rootfs.verified_at = None if damaged else timezone.now()
    with transaction.atomic():
        rootfs.save(update_fields=["verified_at"])
        events.append("rootfs.damaged" if damaged else "rootfs.verified", rootfs)
    if damaged:
        raise Broken(
            f"The file of {rootfs} is {'damaged' if found else 'missing'}.",
            detail=f"expected: sha256 {rootfs.sha256}\nfound: {found or 'no file'}",
            hint="Delete the file, then fetch it again.",
            code="rootfs-damaged",
        )
    return f"sha256 {rootfs.sha256[:12]}… holds"


def _digest(rootfs: Rootfs, run: Run) -> str:
    """The SHA-256 of the file as it is now; empty where it is gone."""
    path, digest, done = rootfs_path(rootfs), hashlib.sha256(), 0
    if not path.exists():
        return ""
    with path.open("rb") as file:
        while data := file.read(_READ_STEP):
            digest.update(data)
            done += len(data)
            run.progress(done / max(rootfs.size_bytes, 1))
    return digest.hexdigest()

"""The rules about releases of Firecracker: downloaded, kept side by side, used, removed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from images.downloads import sweep_partials
from images.files import scratch_directory, sweep, sync_directory
from images.models import VmmRelease
from images.providers import releases
from images.providers.base import version_key
from images.providers.releases import FIRECRACKER, JAILER, FetchedRelease
from images.providers.releases.binaries import check_program, check_version, sha256_if_there
from images.services.fetched import drop_archive, fetched_before, keep_fetched
from images.services.places import assets_dir, host_arch
from images.services.release_offers import release_provider
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NotFound
from nexus_site.core.ids import NexusID, is_id
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation, open_operations
from nexus_site.core.steps import Plan, Run, Step

KIND = "firecracker.download"
DEADLINE = timedelta(hours=1)

#: (version, name of a VM) of each VM that Firecracker runs on this host; filled by ``vms``.
Users = Callable[[], Iterable[tuple[str, str]]]
_users: list[Users] = []


@dataclass(frozen=True)
class ReleaseFiles:
    """What a driver is given of a release."""

    version: str
    arch: str
    firecracker: Path
    jailer: Path | None


def ask_for_users(users: Users) -> None:
    """Have ``users`` asked before a release is removed; called once by the room that knows."""
    if users not in _users:
        _users.append(users)


def release_users() -> dict[str, list[str]]:
    """The names of the VMs that run, by the version of Firecracker that they run on."""
    found: dict[str, list[str]] = {}
    for users in _users:
        for version, name in users():
            found.setdefault(version, []).append(name)
    return found


def with_running_vms(rows: Iterable[VmmRelease]) -> list[VmmRelease]:
    """The releases, each told which VMs run on it; asks once for all."""
    users, found = release_users(), list(rows)
    for release in found:
        release.running_vms = sorted(users.get(release.version, []))
    return found


def installed_releases() -> QuerySet[VmmRelease]:
    """The releases of Firecracker on this host, the default one first."""
    return VmmRelease.objects.filter(kind=VmmRelease.Kind.FIRECRACKER, arch=host_arch())


def find_release(ref: str) -> VmmRelease:
    """A release by its ID or its version (``1.12.1`` or ``v1.12.1``). Raises ``NotFound``."""
    rows = installed_releases()
    wanted = rows.filter(pk=NexusID.parse(ref)) if is_id(ref) else rows.filter(version=_plain(ref))
    if (release := wanted.first()) is None:
        raise NotFound(
            f"There is no release “{ref[:80]}” of Firecracker on this host.",
            hint="See which there are: nexusctl firecracker installed",
            code="release-not-found",
        )
    return release


def default_release() -> ReleaseFiles | None:
    """The release that VMs are started with; None without one, or when its files are gone."""
    release = installed_releases().filter(is_default=True).first()
    return release_files(release) if release else None


def release_of_version(version: str) -> ReleaseFiles | None:
    """The release of exactly this version, such as the one that a snapshot was taken with."""
    release = installed_releases().filter(version=_plain(version)).first()
    return release_files(release) if release else None


def release_files(release: VmmRelease) -> ReleaseFiles | None:
    """Where its programs are; None when one of them is gone."""
    directory = release_dir(release)
    files = ReleaseFiles(
        release.version,
        release.arch,
        directory / FIRECRACKER,
        directory / JAILER if release.jailer_sha256 else None,
    )
    there = all(path.is_file() for path in (files.firecracker, files.jailer) if path)
    return files if there else None


def release_dir(release: VmmRelease) -> Path:
    """The directory with its programs."""
    return assets_dir() / release.directory


def releases_dir() -> Path:
    """Where all releases are kept; made if need be."""
    directory = assets_dir() / FIRECRACKER
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    return directory


@transaction.atomic
def download_release(
    version: str = "", provider: str = releases.DEFAULT, path: str = ""
) -> Operation:
    """Bring a release of Firecracker here; without a version the newest that there is.

    ``path`` names a place on the server: needed by ``local``, for ``wheel`` a file in place of
    a download. The first release becomes the default. Raises ``Invalid``, ``Conflict``.
    """
    release_provider(provider).check(_plain(version), path)
    if busy := open_operations().filter(kind=KIND).first():
        raise Conflict(
            f"A release of Firecracker is on its way: {busy.title}.",
            hint=f"Wait for it: nexusctl operation wait {busy.ref}",
            code="release-busy",
            extra={"operation": busy.ref},
        )
    return open_operation(
        KIND,
        f"Fetch Firecracker {_plain(version)}".strip(),
        params={
            "version": _plain(version),
            "provider": provider,
            "path": path,
            "arch": host_arch(),
        },
        deadline=DEADLINE,
    )


@transaction.atomic
def use_release(release: VmmRelease) -> VmmRelease:
    """Start VMs with this release from now on; those that run stay on theirs."""
    if release_files(release) is None:
        raise Broken(
            f"The files of {release} are gone.",
            hint=f"Bring them back: nexusctl firecracker download {release.version}",
            code="release-missing",
        )
    if not release.is_default:
        _make_default(release)
    return release


@transaction.atomic
def remove_release(release: VmmRelease) -> None:
    """Remove a release that no VM runs on. Raises ``Conflict`` with those that do.

    The newest of the others becomes the default where this one was it.
    """
    if names := release_users().get(release.version, []):
        raise Conflict(
            f"{release} is used by VMs that run: {', '.join(sorted(names)[:20])}.",
            hint="Stop them first. They start with the default release again.",
            code="release-used",
            extra={"vms": sorted(names)},
        )
    directory = release_dir(release)
    events.append("release.removed", release, version=release.version)
    VmmRelease.objects.filter(pk=release.pk).delete()
    if heir := next_default(release):
        _make_default(heir)
    transaction.on_commit(lambda: shutil.rmtree(directory, ignore_errors=True))


def next_default(release: VmmRelease) -> VmmRelease | None:
    """What takes the place of the default release when that is removed: the newest that works."""
    if not release.is_default:
        return None
    others = installed_releases().exclude(pk=release.pk)
    return max(others, key=_worth, default=None)


def sweep_releases() -> None:
    """Remove what interrupted downloads and removals left; run when a worker starts."""
    directory = releases_dir()
    sweep(directory)
    sweep_partials(directory)
    found = [path for path in directory.iterdir() if not path.name.startswith(".")]
    if open_operations().filter(kind=KIND).exists():  # it goes on from what is there
        return
    kept = {assets_dir() / name for name in VmmRelease.objects.values_list("directory", flat=True)}
    for path in found:
        if path not in kept:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def _plain(version: str) -> str:
    return version.strip().removeprefix("v")


def _worth(release: VmmRelease) -> tuple[bool, Any]:
    return release_files(release) is not None, version_key(release.version)


def _make_default(release: VmmRelease) -> None:
    installed_releases().filter(is_default=True).update(is_default=False)
    release.is_default = True
    release.save(update_fields=["is_default"])
    events.append("release.default", release, version=release.version)


# What workers run


def download_plan(operation: Operation) -> Plan:
    return [
        Step("fetch", "Fetch the release", _fetch, done=_is_here, undo=drop_archive),
        Step("install", "Take out its programs and try them", _install, done=_is_kept, keeps=True),
    ]


def _is_here(run: Run) -> str | None:
    """Nothing to do for a version that is here; what is on this machine is looked at anyway."""
    params = run.params
    if not params["version"] or params["provider"] == "local":
        return None
    return _here(run, params["version"])


def _is_kept(run: Run) -> str | None:
    return f"{run.made['version']} is there" if "release" in run.made else None


def _here(run: Run, version: str) -> str | None:
    release = installed_releases().filter(version=version).first()
    if release is None or not _is_intact(release):
        return None
    if not run.operation.ended and run.operation.started_at:
        run.keep(release=release.ref, version=version)
    return f"{release} is there"


def _fetch(run: Run) -> str:
    params = run.params
    provider = release_provider(params["provider"])
    offer = provider.find(params["version"], params["arch"], params["path"])
    if provider.name != "local" and (note := _here(run, offer.version)):
        return note
    fetched = provider.fetch(
        offer,
        params["path"],
        releases_dir(),
        lambda done, size: run.progress(done / size if size else None),
    )
    keep_fetched(run, fetched)
    return f"{fetched.version}, from {fetched.source}"


def _install(run: Run) -> str:
    fetched = fetched_before(run)
    provider = release_provider(run.params["provider"])
    with scratch_directory(releases_dir()) as scratch:
        directory = scratch / "release"
        directory.mkdir(mode=0o755)
        provider.unpack(fetched, directory)
        run.check()
        found = _examined(directory, fetched)
        release = _keep(provider.name, fetched, found, directory)
    drop_archive(run)
    run.keep(release=release.ref, is_default=release.is_default)
    jailer = "with its jailer" if release.jailer_sha256 else "without a jailer"
    return f"{release}, {jailer}{', the default' if release.is_default else ''}"


def _examined(directory: Path, fetched: FetchedRelease) -> dict[str, Any]:
    """What the row says about the programs, which run here and are what they should be."""
    programs = [path for name in (FIRECRACKER, JAILER) if (path := directory / name).exists()]
    for path in programs:
        check_program(path, fetched.arch)
        check_version(path, fetched.version, path.name)
        with path.open("rb") as file:
            os.fsync(file.fileno())
    sync_directory(directory)
    return {
        "sha256": sha256_if_there(directory / FIRECRACKER),
        "jailer_sha256": sha256_if_there(directory / JAILER),
        "size_bytes": sum(path.stat().st_size for path in programs),
    }


@transaction.atomic
def _keep(
    provider: str, fetched: FetchedRelease, found: dict[str, Any], directory: Path
) -> VmmRelease:
    """The row of what is in ``directory``, which goes to its place unless it is there."""
    release = installed_releases().filter(version=fetched.version).first()
    if release is not None and not _same(release, found):
        raise Conflict(
            f"{release} is here already, and is another file than this one.",
            detail=f"here: sha256 {release.sha256}\nnow: sha256 {found['sha256']}",
            hint=f"Remove that one first: nexusctl firecracker remove {release.version}",
            code="release-changed",
        )
    target = releases_dir() / f"{fetched.version}-{fetched.arch}"
    if release is None or not _is_intact(release):
        shutil.rmtree(target, ignore_errors=True)  # of a download that was cut short
        directory.rename(target)
        sync_directory(target.parent)
    if release is None:
        release = VmmRelease.objects.create(
            version=fetched.version,
            arch=fetched.arch,
            provider=provider,
            directory=str(target.relative_to(assets_dir())),
            source=fetched.source[:500],
            verification=fetched.verification[:200],
            is_default=not installed_releases().filter(is_default=True).exists(),
            **found,
        )
        events.append("release.created", release, version=release.version)
    return release


def _same(release: VmmRelease, found: dict[str, Any]) -> bool:
    return all(getattr(release, name) == found[name] for name in ("sha256", "jailer_sha256"))


def _is_intact(release: VmmRelease) -> bool:
    """Whether its programs are those of the day it came; reads them."""
    directory = release_dir(release)
    found = {
        "sha256": sha256_if_there(directory / FIRECRACKER),
        "jailer_sha256": sha256_if_there(directory / JAILER),
    }
    return _same(release, found)

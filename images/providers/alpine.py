"""Alpine from its CDN or a mirror: the mini root file system of each release.

``BASE/BRANCH/releases/ARCH/`` has ``latest-releases.yaml``, and each file with its ``.sha256``
and its OpenPGP signature ``.asc``. Nothing in the list is taken on trust: a file's name follows
from version and architecture, and both checksums must agree.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from images import downloads
from images.downloads.signatures import MAX_SIGNATURE
from images.files import Progress, no_progress
from images.providers.base import FetchedRootfs, Field, ProviderType, RootfsOffer
from images.providers.fields import ARCHES, check_base_url
from nexus_site.core.errors import Broken, NotFound

BASE_URL = "https://dl-cdn.alpinelinux.org/alpine"
FLAVOR = "alpine-minirootfs"
FORMAT = "tar.gz"
LATEST = "latest-stable"
#: How many branches before the newest are asked for; these are the ones still maintained.
OLDER_BRANCHES = 3

_MAX_LIST = 128 << 10  # bytes; the real one has 10 KB
_MAX_CHECKSUM = 4 << 10
_MAX_FILE = 2 << 30
_VERSION = re.compile(r"(\d{1,3})\.(\d{1,3})(?:\.\d{1,4}(?:_(?:alpha|beta|rc)\d{1,3})?)?")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """One entry of the list that has been found sound."""

    version: str
    sha256: str
    size_bytes: int


class AlpineProvider:
    """The releases at ``base_url``; with a ``keyring`` only what one of its keys has signed."""

    def __init__(self, name: str, config: Mapping[str, Any]) -> None:
        self.name = name
        self._base_url = str(config.get("base_url") or BASE_URL).rstrip("/")
        self._keyring = str(config.get("keyring") or "")

    def offers(self) -> Sequence[RootfsOffer]:
        """None: only the publisher knows."""
        return ()

    def refresh(self) -> Sequence[RootfsOffer]:
        """The newest release of each maintained branch, for this machine."""
        arch = platform.machine()
        if arch not in ARCHES:
            return ()
        newest = self._release(LATEST, arch)
        found = [newest, *(self._release(branch, arch) for branch in _branches_before(newest))]
        return [self._offer(release, arch) for release in found if release is not None]

    def serves(self, distro: str) -> bool:
        return distro.lower() == "alpine"

    def find(self, distro: str, version: str, arch: str) -> RootfsOffer | None:
        """A release, also an old one; “3.23” is the newest of its branch."""
        if not self.serves(distro) or not _VERSION.fullmatch(version) or arch not in ARCHES:
            return None
        release = self._release(_branch(version), arch)
        if release is None:
            return None
        if release.version == version or release.version.startswith(f"{version}."):
            return self._offer(release, arch)
        try:  # an old one is not in the list any more, but still beside it
            self._published_sha256(version, arch)
        except NotFound:
            return None
        return self._offer(Release(version, "", 0), arch)

    def fetch(
        self, offer: RootfsOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedRootfs:
        """Download the file; its checksums and, with a keyring, its signature must hold."""
        version, arch = offer.version, offer.arch
        if not _VERSION.fullmatch(version) or arch not in ARCHES:
            raise NotFound(f"There is no Alpine {version} for {arch}.", code="rootfs-not-found")
        url = self._url(_branch(version), arch, _filename(version, arch))
        sha256, size = self._expected(version, arch)
        signature = self._signature(url) if self._keyring else b""
        signer = ""

        def check(path: Path) -> None:
            nonlocal signer
            if self._keyring:
                signer = downloads.verify_detached(path, signature, self._keyring, progress)

        done = downloads.download(
            url,
            destination_dir / _filename(version, arch),
            sha256=sha256,
            size=size,
            check=check,
            policy=downloads.Policy(max_bytes=_MAX_FILE),
            progress=progress,
        )
        return FetchedRootfs(
            done.path,
            done.sha256,
            done.size_bytes,
            FORMAT,
            source=url,
            verification=f"sha256, OpenPGP {signer}" if signer else "sha256",
        )

    def _expected(self, version: str, arch: str) -> tuple[str, int | None]:
        """Checksum and size of a release, about which list and ``.sha256`` must agree."""
        published = self._published_sha256(version, arch)
        listed = self._release(_branch(version), arch)
        if listed is None or listed.version != version:
            return published, None
        if listed.sha256 != published:
            raise Broken(
                f"The mirror contradicts itself about the checksum of Alpine {version}.",
                detail=f"latest-releases.yaml: {listed.sha256}\n.sha256: {published}",
                hint="It may be in the middle of an update; try again later or another mirror.",
                code="checksum",
            )
        return published, listed.size_bytes

    def _published_sha256(self, version: str, arch: str) -> str:
        url = self._url(_branch(version), arch, f"{_filename(version, arch)}.sha256")
        text = downloads.fetch_bytes(url, _MAX_CHECKSUM).decode("ascii", "replace")
        word, _, name = text.strip().partition(" ")
        if not _SHA256.fullmatch(word) or name.strip(" *") not in ("", _filename(version, arch)):
            raise Broken(
                "The mirror's checksum file is none.", detail=text[:500], code="publisher-answer"
            )
        return word

    def _signature(self, url: str) -> bytes:
        try:
            return downloads.fetch_bytes(f"{url}.asc", MAX_SIGNATURE)
        except NotFound as error:
            raise downloads.invalid_signature(f"{url}.asc", "there is no signature") from error

    def _release(self, branch: str, arch: str) -> Release | None:
        """The newest release of a branch; None where the mirror has no such branch."""
        url = self._url(branch, arch, "latest-releases.yaml")
        try:
            document = downloads.fetch_bytes(url, _MAX_LIST)
        except NotFound:
            if branch == LATEST:
                raise
            return None
        return _read_list(document, arch, url)

    def _offer(self, release: Release, arch: str) -> RootfsOffer:
        name = _filename(release.version, arch)
        return RootfsOffer(
            distro="alpine",
            version=release.version,
            arch=arch,
            provider=self.name,
            filename=name,
            size_bytes=release.size_bytes or None,
            format=FORMAT,
            source=self._url(_branch(release.version), arch, name),
        )

    def _url(self, branch: str, arch: str, name: str) -> str:
        return f"{self._base_url}/{branch}/releases/{arch}/{name}"


def _read_list(document: bytes, arch: str, url: str) -> Release:
    """The mini root file system in a list. Raises ``Broken`` where there is no sound one."""
    try:
        entries = yaml.safe_load(document)
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise _bad_list(url, f"it is no YAML: {type(error).__name__}") from error
    if not isinstance(entries, list):
        raise _bad_list(url, "it is no list")
    for entry in entries:
        if isinstance(entry, dict) and entry.get("flavor") == FLAVOR:
            return _read_entry(entry, arch, url)
    raise _bad_list(url, f"it has no {FLAVOR}")


def _read_entry(entry: Mapping[str, Any], arch: str, url: str) -> Release:
    version, sha256, size = (entry.get(key) for key in ("version", "sha256", "size"))
    if not isinstance(version, str) or not _VERSION.fullmatch(version):
        raise _bad_list(url, "its version is none")
    if entry.get("arch") != arch or entry.get("file") != _filename(version, arch):
        raise _bad_list(url, "its file is not the one of this version and architecture")
    if not isinstance(sha256, str) or not _SHA256.fullmatch(sha256):
        raise _bad_list(url, "its sha256 is none")
    if type(size) is not int or not 0 < size <= _MAX_FILE:
        raise _bad_list(url, "its size is none")
    return Release(version, sha256, size)


def _bad_list(url: str, reason: str) -> Broken:
    return Broken(
        f"The mirror's list of releases cannot be used: {reason}.",
        detail=url,
        hint="Check the base URL of the provider; it ends before /latest-stable.",
        code="publisher-answer",
    )


def _branch(version: str) -> str:
    """``v3.23`` of ``3.23.1``."""
    found = _VERSION.fullmatch(version)
    assert found is not None, "checked before"
    return f"v{found[1]}.{found[2]}"


def _branches_before(newest: Release | None) -> list[str]:
    if newest is None:
        return []
    major, minor = (int(part) for part in _branch(newest.version)[1:].split("."))
    return [f"v{major}.{minor - back}" for back in range(1, OLDER_BRANCHES + 1) if minor >= back]


def _filename(version: str, arch: str) -> str:
    return f"{FLAVOR}-{version}-{arch}.{FORMAT}"


TYPE = ProviderType(
    "alpine",
    "Alpine",
    "The mini root file systems of Alpine's releases, from its CDN or a mirror.",
    AlpineProvider,
    (
        Field(
            "base_url",
            "Base URL",
            "Of the CDN or a mirror: what comes before /latest-stable.",
            default=BASE_URL,
            check=check_base_url,
        ),
        Field(
            "keyring",
            "Keyring",
            "Armored OpenPGP certificates, one of which must have signed. Empty: not asked for.",
            multiline=True,
            check=downloads.check_keyring,
        ),
    ),
)

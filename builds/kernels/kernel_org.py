"""What kernel.org, or a mirror with its layout, says of a version.

`RELEASES/releases.json` names the versions that are maintained; `SOURCES/v6.x/sha256sums.asc`
has the checksums of all tarballs beside it, signed within itself by kernel.org's autosigner.
Only the signed text is believed about bytes; the list says what is new.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from images import downloads
from images.files import Progress
from nexus_site.core.errors import Broken, Conflict, Invalid, NotFound, Retryable

VERSION = re.compile(r"([0-9]{1,3})\.[0-9]{1,3}(?:\.[0-9]{1,4})?(?:-rc[0-9]{1,2})?")
_MAX_LIST = 1 << 20  # bytes; the real one has 10 KB
_MAX_CHECKSUMS = 8 << 20  # and 0.5 MB
_MAX_TARBALL = 2 << 30
_MAX_RELEASES = 200
_LINE = re.compile(r"([0-9a-f]{64}) [ *](linux-[0-9A-Za-z._-]{1,60}\.tar\.xz)")
#: The autosigner's certificate, B8868C80BA62A1FFFAF5FDA9632D3A06589DA6B1.
AUTOSIGNER = Path(__file__).with_name("autosigner.asc")
_POLICY = downloads.Policy(attempts=2, connect_timeout=10, read_timeout=20)


@dataclass(frozen=True)
class Release:
    """One entry of the list that has been found sound."""

    version: str
    moniker: str  # mainline, stable, longterm…
    eol: bool
    released: str  # 2026-11-20


@dataclass(frozen=True)
class Checksum:
    """What the signed list says of a version's tarball."""

    sha256: str
    signer: str  # the certificate's fingerprint


class KernelOrg:
    """A server with kernel.org's layout; ``keyring`` is a file of certificates that may sign
    for it, ``scratch_in`` a directory for what is checked."""

    def __init__(
        self, releases_url: str, sources_url: str, keyring: Path, scratch_in: Path
    ) -> None:
        self._releases_url = releases_url.rstrip("/")
        self._sources_url = sources_url.rstrip("/")
        self._keyring, self._scratch_in = keyring, scratch_in

    def releases(self) -> tuple[list[Release], str]:
        """The versions that are maintained, and which of them is the latest stable one.

        Raises ``Retryable`` when the server cannot be reached, ``Broken`` for an answer that
        makes no sense.
        """
        url = f"{self._releases_url}/releases.json"
        try:
            document = json.loads(_fetch(url, _MAX_LIST))
        except (ValueError, RecursionError) as error:
            raise _odd(url, "it is no JSON") from error
        if not isinstance(document, dict) or not isinstance(document.get("releases"), list):
            raise _odd(url, "it has no list of releases")
        found = [_release(entry) for entry in document["releases"][:_MAX_RELEASES]]
        stable = document.get("latest_stable")
        latest = str(stable.get("version", "")) if isinstance(stable, dict) else ""
        if not VERSION.fullmatch(latest):
            raise _odd(url, "it does not say which version is the latest stable one")
        return [release for release in found if release], latest

    def checksum(self, version: str) -> Checksum | None:
        """The signed checksum of a version's tarball; None where the list has none (yet).

        Raises ``Conflict`` (codes ``keyring-unusable``, ``gpgv-missing``), ``Broken``
        (``signature-invalid``), and what `releases` raises.
        """
        url = f"{self._directory(version)}/sha256sums.asc"
        try:
            document = _fetch(url, _MAX_CHECKSUMS)
        except NotFound:
            return None
        text, signer = self._signed(url, document)
        listed = {name: sha256 for sha256, name in map(_listed, text.splitlines()) if sha256}
        sha256 = listed.get(tarball_name(version))
        return Checksum(sha256, signer) if sha256 else None

    def download(
        self, version: str, checksum: Checksum, directory: Path, progress: Progress
    ) -> Path:
        """The tarball that has this checksum."""
        path = directory / tarball_name(version)
        policy = downloads.Policy(max_bytes=_MAX_TARBALL)
        downloads.download(
            self.tarball_url(version),
            path,
            sha256=checksum.sha256,
            policy=policy,
            progress=progress,
        )
        return path

    def tarball_url(self, version: str) -> str:
        return f"{self._directory(version)}/{tarball_name(version)}"

    def _directory(self, version: str) -> str:
        return f"{self._sources_url}/v{check_version(version)}.x"

    def _signed(self, url: str, document: bytes) -> tuple[str, str]:
        """The text that is signed in a document, and the certificate's fingerprint."""
        try:
            return downloads.verify_inline(url, document, self._certificates(), self._scratch_in)
        except Broken as error:
            raise Broken(
                error.text,
                detail=error.detail,
                hint="The server is damaged or not to be trusted, or signs with another key now. "
                "Then get its certificate (see kernel.org/signature.html) and set "
                "NEXUS_KERNEL_KEYRING to its file.",
                code=error.code,
            ) from error

    def _certificates(self) -> str:
        try:
            return downloads.check_keyring(self._keyring.read_text())
        except (OSError, ValueError) as error:
            raise Conflict(
                f"The keyring {self._keyring} cannot be used: {error}",
                hint="It is set by NEXUS_KERNEL_KEYRING; it holds armored certificates.",
                code="keyring-unusable",
            ) from error


def check_version(version: str) -> str:
    """The first number of a version; ``Invalid`` for what is none."""
    found = VERSION.fullmatch(version)
    if found is None:
        raise Invalid(
            f"“{version[:60]}” is no kernel version.",
            hint="They look like 6.12.58 or 6.18.",
            code="version-invalid",
        )
    return found[1]


def tarball_name(version: str) -> str:
    return f"linux-{version}.tar.xz"


def _fetch(url: str, limit: int) -> bytes:
    try:
        return downloads.fetch_bytes(url, limit, policy=_POLICY)
    except Retryable as error:
        raise Retryable(
            error.text,
            detail=error.detail,
            hint="Look at this machine's network, then try again. Without one a kernel is built "
            "of a tarball: nexusctl kernel build --source TARBALL",
            code=error.code,
        ) from error


def _listed(line: str) -> tuple[str, str]:
    found = _LINE.fullmatch(line)
    return (found[1], found[2]) if found else ("", "")


def _release(entry: object) -> Release | None:
    """What is sound of an entry; None for others, such as linux-next."""
    if not isinstance(entry, Mapping):
        return None
    version, moniker = entry.get("version"), entry.get("moniker")
    if not isinstance(version, str) or not VERSION.fullmatch(version):
        return None
    released: Any = entry.get("released")
    date = released.get("isodate") if isinstance(released, Mapping) else ""
    return Release(version, str(moniker)[:20], bool(entry.get("iseol")), str(date or "")[:10])


def _odd(url: str, reason: str) -> Broken:
    return Broken(
        f"The list of kernel releases cannot be used: {reason}.",
        detail=url,
        hint="Check NEXUS_KERNEL_RELEASES_URL.",
        code="publisher-answer",
    )

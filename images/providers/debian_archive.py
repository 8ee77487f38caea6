"""Which archive of Debian to use, and what state it is in."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from images.providers import mmdebstrap
from images.providers.apt_sources import Source
from nexus_site.core.errors import Broken, Invalid, NotFound

_RELEASE = "(?:(?:old){0,2}stable|testing|unstable|sid|buster|bullseye|bookworm|trixie|forky|duke)"
_MAIN = re.compile(_RELEASE)
_SECURITY = re.compile(f"{_RELEASE}(?:-security|/updates)")
_DATE = re.compile(r"^Date: *(.+)$", re.MULTILINE)


@dataclass(frozen=True)
class Archive:
    """Where Debian's packages are, and those of its security team (empty: nowhere)."""

    uri: str
    security: str = ""


@dataclass(frozen=True)
class State:
    """The suites of a release that an archive has, with the URI of each, and their newest date."""

    suites: dict[str, str]
    date: datetime


def archive_of(sources: Sequence[Source], arch: str) -> Archive:
    """Debian's own archive among the sources of this system's apt, for Debian's name of an
    architecture. Raises ``Invalid`` where there is none."""
    ours = [source for source in sources if _may_be_debian(source, arch)]
    mains = [source for source in ours if any(map(_MAIN.fullmatch, source.suites))]
    securities = [source for source in ours if any(map(_SECURITY.fullmatch, source.suites))]
    if not mains:
        raise Invalid(
            "This system's apt has no mirror of Debian, so there is nothing to take it from.",
            hint="Set the mirror, as http://HOST/debian, in the provider's configuration.",
            code="no-mirror",
        )
    security = max(securities, key=_likeness).uri if securities else ""
    return Archive(max(mains, key=_likeness).uri, security)


def check_mirror(uri: str) -> str:
    """A mirror's URI as it is kept; ``ValueError`` says what is wrong with it."""
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("This must be an address as http://HOST/debian.")
    if "@" in parts.netloc:
        raise ValueError("A name or password in the address would be in every image.")
    if parts.query or parts.fragment or re.search(r"[\s\[\]]", uri):
        raise ValueError("The address may have no query, fragment, space or bracket.")
    return uri.rstrip("/")


def state_of(archive: Archive, codename: str, scratch: Path, watch: Callable[[str], None]) -> State:
    """Ask the archive for a release's suites; ``NotFound`` where it does not have it.

    The signatures are not looked at here: apt does so when it takes the packages.
    """
    wanted = {codename: archive.uri, f"{codename}-updates": archive.uri}
    if archive.security:
        wanted[f"{codename}-security"] = archive.security
    suites, dates = {}, []
    for suite, uri in wanted.items():
        try:
            dates.append(_release_date(uri, suite, scratch, watch))
            suites[suite] = uri
        except NotFound:
            if not suite.endswith("-updates"):  # a mirror of one's own may do without
                raise
    return State(suites, max(dates))


def _release_date(uri: str, suite: str, scratch: Path, watch: Callable[[str], None]) -> datetime:
    """The date in a suite's ``InRelease``, fetched by apt with its proxies and its words."""
    release = scratch / "InRelease"
    release.unlink(missing_ok=True)
    address = f"{uri}/dists/{suite}/InRelease"
    mmdebstrap.run([mmdebstrap.APT_HELPER, "download-file", address, release], watch)
    found = _DATE.search(release.read_text(errors="replace"))
    try:
        return parsedate_to_datetime(found[1] if found else "")
    except ValueError as error:
        raise Broken(
            f"What the mirror has at {address} is no Release file of a suite.",
            hint="Check the mirror in the provider's configuration.",
            code="not-a-mirror",
        ) from error


def _may_be_debian(source: Source, arch: str) -> bool:
    """Whether images could be made from this source, as far as its own words tell."""
    try:
        check_mirror(source.uri)
    except ValueError:
        return False
    signed = not source.signed_by or "debian-archive" in source.signed_by
    built = not source.architectures or arch in source.architectures
    return signed and built and "main" in source.components


def _likeness(source: Source) -> tuple[bool, bool]:
    """How much it looks like Debian itself; others, too, name their suites after its releases."""
    path = urlsplit(source.uri).path
    return "debian-archive" in source.signed_by, bool(re.search(r"/debian(-security)?\Z", path))

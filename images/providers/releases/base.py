"""What a provider of Firecracker releases offers and delivers: plain values."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images.files import Progress, no_progress
from nexus_site.core.errors import Invalid, NotFound

#: The programs of a release, as they are called where Nexus keeps them.
FIRECRACKER, JAILER = "firecracker", "jailer"
VERSION = re.compile(r"[0-9]{1,4}(?:\.[0-9]{1,4}){2}(?:-[A-Za-z0-9.-]{1,30})?")


@dataclass(frozen=True)
class ReleaseOffer:
    """A release of Firecracker that a provider can deliver."""

    version: str  # without a “v”: 1.12.1
    arch: str  # x86_64 or aarch64
    provider: str
    source: str  # URL, or what it is in
    size_bytes: int | None = None  # of the download; None: not known before


@dataclass(frozen=True)
class FetchedRelease:
    """A release that is on this machine, not yet taken apart."""

    version: str
    arch: str
    path: Path  # an archive, or what the operator has named
    source: str
    verification: str  # what vouches for it: "sha256", …
    ours: bool = True  # whether ``path`` may be deleted afterwards


class ReleaseProvider(Protocol):
    """A source of Firecracker releases."""

    name: str
    label: str  # for people

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        """What it knows it can deliver without asking anyone: quick."""
        ...

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        """What there is now, newest first; ``Retryable`` when the publisher is out of reach."""
        ...

    def check(self, version: str, path: str) -> None:
        """Raise ``Invalid`` for a wish that it can never fulfil; asks nobody."""
        ...

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        """The offer of ``version`` (empty: the newest), from ``path`` where one is given.

        May ask the publisher. Raises ``NotFound``, ``Invalid``, ``Retryable``, ``Broken``.
        """
        ...

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        """Put what ``offer`` means into ``directory``, whole or not at all; safe to repeat."""
        ...

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        """Put ``firecracker``, and ``jailer`` where there is one, into an empty directory.

        Nothing else may be in there then. Raises ``Invalid`` for what is no such release.
        """
        ...


def check_version_text(version: str) -> None:
    """Raise ``Invalid`` unless this is a version, or empty."""
    if version and not VERSION.fullmatch(version):
        raise Invalid(
            f"“{version[:40]}” is no version of Firecracker.",
            hint="Versions look like 1.12.1.",
            code="release-version",
        )


def check_path(path: str) -> None:
    """Raise ``Invalid`` unless this is an absolute path."""
    if not path.startswith("/") or "\0" in path:
        raise Invalid("The path must be an absolute one on the server.", code="release-path")


def no_release(version: str, arch: str, hint: str) -> NotFound:
    """The error for a release that a provider does not have."""
    what = f"no Firecracker {version}" if version else "no release of Firecracker"
    return NotFound(f"There is {what} for {arch}.", hint=hint, code="release-not-found")

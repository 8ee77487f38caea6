"""Firecracker that is on the server's machine already, where an operator says it is."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.files import Progress, no_progress
from images.providers.releases.base import (
    FIRECRACKER,
    JAILER,
    FetchedRelease,
    ReleaseOffer,
    check_path,
    check_version_text,
)
from images.providers.releases.binaries import check_program, copy_program, version_of
from nexus_site.core.errors import Invalid, NotFound


class LocalProvider:
    """The program at a path, or in the directory there, and the jailer beside it.

    Names are those of an installation (``firecracker``) or of the unpacked release
    (``firecracker-v1.12.1-x86_64``). The file is the operator's and trusted: it is started.
    """

    name = "local"
    label = "The server's machine"

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        """None: only the operator knows."""
        return ()

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        return ()

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        if not path:
            raise Invalid(
                "The provider “local” needs a path on the server.",
                hint="Say where firecracker is: --path /usr/local/bin",
                code="release-path",
            )
        check_path(path)

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        program = program_at(path, arch)
        check_program(program, arch)
        found = version_of(program)
        if version not in ("", found):
            raise Invalid(
                f"{program} is Firecracker {found}, not {version}.",
                hint="Leave the version out, or name another path.",
                code="release-says-otherwise",
            )
        return ReleaseOffer(found, arch, self.name, str(program), program.stat().st_size)

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        """Nothing to do: it is here."""
        return FetchedRelease(
            offer.version,
            offer.arch,
            Path(offer.source),
            source=offer.source,
            verification="as found on the server",
            ours=False,
        )

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        copy_program(fetched.path, directory / FIRECRACKER)
        jailer = fetched.path.with_name(fetched.path.name.replace(FIRECRACKER, JAILER, 1))
        if jailer != fetched.path and jailer.is_file():
            copy_program(jailer, directory / JAILER)


def program_at(path: str, arch: str) -> Path:
    """The firecracker that ``path`` means. Raises ``NotFound``."""
    place = Path(path)
    if place.is_file():
        return place
    candidates = [place / FIRECRACKER, *sorted(place.glob(f"{FIRECRACKER}-v*-{arch}"))]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise NotFound(
        f"There is no firecracker at {path} on the server.",
        hint="Name the directory that it is in, or the program itself.",
        code="release-not-found",
    )

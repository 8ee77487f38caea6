"""The kernel that comes with Nexus, in the installed package of Alpine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from images.files import Progress, no_progress
from images.providers.base import KernelOffer
from images.providers.embedded import SOURCE, VERIFICATION, EmbeddedProvider
from images.providers.kernels.base import check_version_text, no_kernel, no_path
from images.providers.releases.base import FetchedRelease, ReleaseOffer


class EmbeddedKernels:
    """One for an architecture; needs no network."""

    name = "embedded"
    label = "The one that comes with Nexus"

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        return [
            ReleaseOffer(found.version, found.arch, self.name, SOURCE)
            for found in EmbeddedProvider().list_kernels()
            if found.arch == arch
        ]

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        """The same: there is nobody to ask."""
        return self.offers(arch)

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        no_path(path)

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        for offer in self.offers(arch):
            if version in ("", offer.version):
                return offer
        raise no_kernel(version, arch, "Install the embedded one with: ./nexus up")

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        """Nothing to do: it is here."""
        return FetchedRelease(offer.version, offer.arch, Path(), SOURCE, VERIFICATION, ours=False)

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        offer = KernelOffer(fetched.version, fetched.arch, self.name)
        EmbeddedProvider().fetch_kernel(offer, directory)

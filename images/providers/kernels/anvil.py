"""Kernels that a Nexus has built and released: files beside a signed list of their checksums.

``BASE/SHA256SUMS`` names them (``vmlinux-VERSION-ARCH.xz``), ``BASE/SHA256SUMS.asc`` is its
detached OpenPGP signature. Without a certificate to check that with, nothing is fetched.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Sequence
from pathlib import Path

from images import downloads
from images.files import Progress, no_progress, scratch_directory, system_errors
from images.formats.archives import opened
from images.formats.compression import chunks
from images.kernel_elf import MAX_VMLINUX_BYTES
from images.providers.base import version_key
from images.providers.kernels.base import (
    VERSION,
    check_version_text,
    no_kernel,
    no_path,
    put_kernel,
)
from images.providers.releases.base import FetchedRelease, ReleaseOffer
from nexus_site.core.errors import Broken, Invalid

SUMS = "SHA256SUMS"
OTHERS = (
    "Without a way to it: `nexusctl kernel download --provider distro` takes a Debian kernel, "
    "`--provider local --path FILE` what is on this machine."
)

_MAX_SUMS = 1 << 20
_MAX_ARCHIVE = 256 << 20
_LINE = re.compile(
    rf"(?P<sha256>[0-9a-f]{{64}}) [ *](?P<name>vmlinux-(?P<version>{VERSION.pattern})"
    r"-(?P<arch>x86_64|aarch64)\.xz)"
)


class AnvilProvider:
    """The releases at ``base_url``, vouched for by a certificate in the file ``keyring``."""

    name = "anvil"
    label = "Released kernels"

    def __init__(self, base_url: str = "", keyring: Path | None = None) -> None:
        self._base_url, self._keyring = base_url.rstrip("/"), keyring

    def offers(self, arch: str) -> Sequence[ReleaseOffer]:
        """None: only the publisher knows."""
        return ()

    def refresh(self, arch: str) -> Sequence[ReleaseOffer]:
        """None where no address is configured."""
        if not self._base_url:
            return ()
        with tempfile.TemporaryDirectory() as scratch:
            listed, _ = self._listed(Path(scratch))
        found = [
            ReleaseOffer(one["version"], arch, self.name, self._url(one["name"]))
            for one in listed
            if one["arch"] == arch
        ]
        return sorted(found, key=lambda offer: version_key(offer.version), reverse=True)

    def check(self, version: str, path: str) -> None:
        check_version_text(version)
        no_path(path)
        if not self._base_url or self._keyring is None:
            raise Invalid(
                "Nexus was not told where kernels are released, and whose signature they have.",
                hint="Set NEXUS_ANVIL_RELEASES_URL and NEXUS_ANVIL_RELEASES_KEYRING. " + OTHERS,
                code="kernel-releases",
            )

    def find(self, version: str, arch: str, path: str) -> ReleaseOffer:
        for offer in self.refresh(arch):
            if version in ("", offer.version):
                return offer
        raise no_kernel(version, arch, "See what there is: nexusctl kernel list --refresh")

    def fetch(
        self, offer: ReleaseOffer, path: str, directory: Path, progress: Progress = no_progress
    ) -> FetchedRelease:
        listed, fingerprint = self._listed(directory)
        wanted = next(
            (o for o in listed if (o["version"], o["arch"]) == (offer.version, offer.arch)), None
        )
        if wanted is None:
            raise no_kernel(offer.version, offer.arch, "It was withdrawn: ask for the list again.")
        done = downloads.download(
            self._url(wanted["name"]),
            directory / wanted["name"],
            sha256=wanted["sha256"],
            policy=downloads.Policy(max_bytes=_MAX_ARCHIVE),
            progress=progress,
        )
        return FetchedRelease(
            offer.version,
            offer.arch,
            done.path,
            source=self._url(wanted["name"]),
            verification=f"sha256, OpenPGP {fingerprint}",
        )

    def unpack(self, fetched: FetchedRelease, directory: Path) -> None:
        with opened(fetched.path, MAX_VMLINUX_BYTES) as stream:
            put_kernel(b"".join(chunks(stream)), directory)

    def _listed(self, directory: Path) -> tuple[list[re.Match[str]], str]:
        """The kernels in the list, and the fingerprint of the certificate that signed it."""
        document = downloads.fetch_bytes(self._url(SUMS), _MAX_SUMS)
        signature = downloads.fetch_bytes(self._url(f"{SUMS}.asc"), _MAX_SUMS)
        with scratch_directory(directory) as scratch:
            (scratch / SUMS).write_bytes(document)
            fingerprint = downloads.verify_detached(scratch / SUMS, signature, self._certificates())
        lines = document.decode("ascii", "replace").splitlines()
        return [found for line in lines if (found := _LINE.fullmatch(line))], fingerprint

    def _certificates(self) -> str:
        if self._keyring is None:
            raise Invalid(
                "Nexus has no certificate to check the kernels' signature with.",
                hint="Set NEXUS_ANVIL_RELEASES_KEYRING to a file of armored certificates.",
                code="kernel-releases",
            )
        try:
            with system_errors():
                return downloads.check_keyring(self._keyring.read_text())
        except ValueError as error:
            raise Broken(
                f"{self._keyring} cannot be used: {error}",
                hint="NEXUS_ANVIL_RELEASES_KEYRING must name a file of armored certificates.",
                code="kernel-keyring",
            ) from error

    def _url(self, name: str) -> str:
        return f"{self._base_url}/{name}"

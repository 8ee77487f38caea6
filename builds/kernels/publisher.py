"""Where kernels' sources come from, as this server is set up."""

from __future__ import annotations

from django.conf import settings

from builds.kernels.kernel_org import AUTOSIGNER, KernelOrg
from images.services import assets_dir


def publisher() -> KernelOrg:
    nexus = settings.NEXUS
    scratch = assets_dir() / "kernels"
    scratch.mkdir(parents=True, exist_ok=True, mode=0o700)
    keyring = nexus.kernel_keyring or AUTOSIGNER
    return KernelOrg(nexus.kernel_releases_url, nexus.kernel_sources_url, keyring, scratch)

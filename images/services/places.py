"""Where the files of this room are, and for which machine they are."""

from __future__ import annotations

import platform
from pathlib import Path

from django.conf import settings


def assets_dir() -> Path:
    """Where downloaded and unpacked root file systems and kernels are kept."""
    return Path(settings.NEXUS.data_dir) / "assets"


def rootfs_dir() -> Path:
    """Where root file systems are kept as their publishers ship them."""
    return assets_dir() / "rootfs"


def host_arch() -> str:
    """The architecture of guests that run here: ``x86_64`` or ``aarch64``."""
    machine = platform.machine()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)

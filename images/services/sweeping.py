"""What interrupted work has left in the assets directory."""

from __future__ import annotations

from images.downloads import sweep_partials
from images.files import sweep
from images.services.kernel_shelf import sweep_kernels
from images.services.places import assets_dir, rootfs_dir
from images.services.releases import sweep_releases
from images.uploads import sweep_uploads


def sweep_assets() -> None:
    """Remove what nobody will take up any more; run when a worker starts."""
    rootfs = rootfs_dir()
    kernels = (assets_dir() / "kernels").glob("*/")
    for directory in (rootfs, *rootfs.glob("*/*/"), *kernels):
        sweep(directory)
        sweep_partials(directory)
    sweep_releases()
    sweep_kernels()
    sweep_uploads()

"""The rules about what VMs boot from: the only code that changes any of it."""

from images.services.images import (
    delete_image,
    discard_image,
    image_path,
    publish_image,
    require_file,
)
from images.services.kernels import (
    BootFiles,
    boot_files,
    ensure_default_kernel,
    ensure_initrd,
    kernel_dir,
)
from images.services.places import assets_dir, host_arch, rootfs_dir, sweep_assets
from images.services.rootfs import (
    download_rootfs,
    ensure_rootfs,
    find_rootfs,
    installed_rootfs,
    list_rootfs_offers,
    rootfs_path,
)

__all__ = [
    "BootFiles",
    "assets_dir",
    "boot_files",
    "delete_image",
    "discard_image",
    "download_rootfs",
    "ensure_default_kernel",
    "ensure_initrd",
    "ensure_rootfs",
    "find_rootfs",
    "host_arch",
    "image_path",
    "installed_rootfs",
    "kernel_dir",
    "list_rootfs_offers",
    "publish_image",
    "require_file",
    "rootfs_dir",
    "rootfs_path",
    "sweep_assets",
]

"""The rules about what VMs boot from: the only code that changes any of it."""

from images.services.images import (
    Provenance,
    delete_image,
    discard_image,
    has_file,
    image_path,
    path_of,
    publish_image,
    require_file,
)
from images.services.imports import import_rootfs
from images.services.kernels import (
    BootFiles,
    boot_files,
    ensure_default_kernel,
    ensure_initrd,
    hotplug_modules,
    kernel_dir,
)
from images.services.names import rename_image
from images.services.offers import find_rootfs, list_rootfs_offers, offers_of
from images.services.places import assets_dir, host_arch, rootfs_dir
from images.services.providers import (
    create_provider,
    delete_provider,
    refresh_provider,
    update_provider,
)
from images.services.release_offers import ReleaseOffers, list_release_offers, refresh_releases
from images.services.releases import (
    ReleaseFiles,
    ask_for_users,
    default_release,
    download_release,
    find_release,
    installed_releases,
    release_dir,
    release_files,
    release_of_version,
    release_users,
    remove_release,
    use_release,
    with_running_vms,
)
from images.services.rootfs import (
    delete_rootfs,
    download_rootfs,
    ensure_rootfs,
    installed_rootfs,
    keep_config,
    rootfs_path,
    verify_rootfs,
)
from images.services.sweeping import sweep_assets

__all__ = [
    "BootFiles",
    "Provenance",
    "ReleaseFiles",
    "ReleaseOffers",
    "ask_for_users",
    "assets_dir",
    "boot_files",
    "create_provider",
    "default_release",
    "delete_image",
    "delete_provider",
    "delete_rootfs",
    "discard_image",
    "download_release",
    "download_rootfs",
    "ensure_default_kernel",
    "ensure_initrd",
    "ensure_rootfs",
    "find_release",
    "find_rootfs",
    "has_file",
    "host_arch",
    "hotplug_modules",
    "image_path",
    "import_rootfs",
    "installed_releases",
    "installed_rootfs",
    "keep_config",
    "kernel_dir",
    "list_release_offers",
    "list_rootfs_offers",
    "offers_of",
    "path_of",
    "publish_image",
    "refresh_provider",
    "refresh_releases",
    "release_dir",
    "release_files",
    "release_of_version",
    "release_users",
    "remove_release",
    "rename_image",
    "require_file",
    "rootfs_dir",
    "rootfs_path",
    "sweep_assets",
    "update_provider",
    "use_release",
    "verify_rootfs",
    "with_running_vms",
]

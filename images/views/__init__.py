"""The pages of what VMs boot from: images, root file systems, their providers, kernels, VMMs."""

from images.views.contents import download_file, export, files, packages
from images.views.images import delete, detail, image_list, rename
from images.views.kernels import (
    download_kernel,
    kernel_detail,
    kernel_list,
    refresh_kernels,
    remove_kernel,
    use_kernel,
    verify_kernel,
)
from images.views.providers import (
    delete_provider,
    edit_provider,
    enable_provider,
    new_provider,
    provider_list,
    refresh_provider,
)
from images.views.releases import (
    download_release,
    refresh_releases,
    release_list,
    remove_release,
    use_release,
)
from images.views.rootfs import (
    delete_rootfs,
    download_rootfs,
    import_rootfs,
    rootfs_detail,
    rootfs_list,
    verify_rootfs,
)

__all__ = [
    "delete",
    "delete_provider",
    "delete_rootfs",
    "detail",
    "download_file",
    "download_kernel",
    "download_release",
    "download_rootfs",
    "edit_provider",
    "enable_provider",
    "export",
    "files",
    "image_list",
    "import_rootfs",
    "kernel_detail",
    "kernel_list",
    "new_provider",
    "packages",
    "provider_list",
    "refresh_kernels",
    "refresh_provider",
    "refresh_releases",
    "release_list",
    "remove_kernel",
    "remove_release",
    "rename",
    "rootfs_detail",
    "rootfs_list",
    "use_kernel",
    "use_release",
    "verify_kernel",
    "verify_rootfs",
]

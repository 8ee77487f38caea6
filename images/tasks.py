"""Which operations of this app workers can run."""

from __future__ import annotations

from images.services import (
    images,
    imports,
    kernel_offers,
    kernel_shelf,
    providers,
    release_offers,
    releases,
    rootfs,
)
from nexus_site.core.operations import register

register("provider.refresh", providers.refresh_plan)
register("rootfs.download", rootfs.download_plan)
register("rootfs.import", imports.import_plan, imports.give_up)
register("rootfs.verify", rootfs.verify_plan)
register("firecracker.refresh", release_offers.refresh_plan)
register(releases.KIND, releases.download_plan)
register("kernel.refresh", kernel_offers.refresh_plan)
register(kernel_shelf.KIND, kernel_shelf.download_plan)
register(kernel_shelf.VERIFY, kernel_shelf.verify_plan)
register("image.delete", images.delete_plan)

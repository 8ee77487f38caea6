"""Which operations of this app workers can run."""

from __future__ import annotations

from images.services import images, rootfs
from nexus_site.core.operations import register

register("rootfs.download", rootfs.download_plan)
register("image.delete", images.delete_plan)

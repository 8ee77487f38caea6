"""Which operations of this app workers can run."""

from __future__ import annotations

from images import services
from nexus_site.core.operations import register

register("rootfs.download", services.download_plan)
register("image.delete", services.delete_plan)

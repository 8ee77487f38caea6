"""Which operations of this app workers can run."""

from __future__ import annotations

from drives import services
from nexus_site.core.operations import register

register("drive.create", services.create_plan)
register("drive.delete", services.delete_plan)

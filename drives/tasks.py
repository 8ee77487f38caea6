"""Which operations of this app workers can run."""

from __future__ import annotations

from drives.services import drives, making, snapshots, storage_check, storage_pool, transfers
from nexus_site.core.operations import register

register("drive.create", making.create_plan)
register("drive.import", transfers.import_plan, transfers.give_up)
register("drive.resize", drives.resize_plan)
register("drive.delete", drives.delete_plan, drives.delete_failed)
register("drive.snapshot", snapshots.take_plan)
register("snapshot.delete", snapshots.delete_plan, snapshots.delete_failed)
register("storage.repair", storage_check.repair_plan)
register("storage.init", storage_pool.init_plan)

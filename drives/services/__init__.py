"""The rules about drives and snapshots: the only code that changes any of it."""

from drives.services.drives import (
    check_limit,
    delete_drive,
    discard,
    mark_ready,
    rename_drive,
    require_file,
    resize_drive,
    set_delete_with_vm,
)
from drives.services.guards import (
    require_detached,
    require_free,
    require_free_name,
    require_idle,
    require_ready,
)
from drives.services.making import check_size, clone_row, create_drive, fill, new_drive
from drives.services.places import file_of, storage, sweep_storage
from drives.services.queries import drive_detail, drive_list, made_of, snapshot_list
from drives.services.rows import MIB, locked, progress_of, size_text
from drives.services.snapshots import (
    copy_snapshot,
    copy_snapshots,
    delete_snapshot,
    discard_snapshot,
    new_snapshot,
    rename_snapshot,
    require_no_vm_snapshot,
    require_own,
    restore,
    take_snapshot,
)
from drives.services.storage_check import Problem, Report, check_storage, repair_storage
from drives.services.storage_pool import init_pool
from drives.services.storage_status import (
    Cost,
    StorageStatus,
    Totals,
    storage_status,
    usage_of,
)
from drives.services.transfers import export_drive, export_snapshot, import_drive

__all__ = [
    "MIB",
    "Cost",
    "Problem",
    "Report",
    "StorageStatus",
    "Totals",
    "check_limit",
    "check_size",
    "check_storage",
    "clone_row",
    "copy_snapshot",
    "copy_snapshots",
    "create_drive",
    "delete_drive",
    "delete_snapshot",
    "discard",
    "discard_snapshot",
    "drive_detail",
    "drive_list",
    "export_drive",
    "export_snapshot",
    "file_of",
    "fill",
    "import_drive",
    "init_pool",
    "locked",
    "made_of",
    "mark_ready",
    "new_drive",
    "new_snapshot",
    "progress_of",
    "rename_drive",
    "rename_snapshot",
    "repair_storage",
    "require_detached",
    "require_file",
    "require_free",
    "require_free_name",
    "require_idle",
    "require_no_vm_snapshot",
    "require_own",
    "require_ready",
    "resize_drive",
    "restore",
    "set_delete_with_vm",
    "size_text",
    "snapshot_list",
    "storage",
    "storage_status",
    "sweep_storage",
    "take_snapshot",
    "usage_of",
]

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
from drives.services.places import file_of, storage
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
from drives.services.transfers import export_drive, export_snapshot, import_drive

__all__ = [
    "MIB",
    "check_limit",
    "check_size",
    "clone_row",
    "copy_snapshot",
    "copy_snapshots",
    "create_drive",
    "delete_drive",
    "delete_snapshot",
    "discard",
    "discard_snapshot",
    "export_drive",
    "export_snapshot",
    "file_of",
    "fill",
    "import_drive",
    "locked",
    "mark_ready",
    "new_drive",
    "new_snapshot",
    "progress_of",
    "rename_drive",
    "rename_snapshot",
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
    "storage",
    "take_snapshot",
]

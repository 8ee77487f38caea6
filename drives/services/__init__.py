"""The rules about drives and snapshots: the only code that changes any of it."""

from drives.services.drives import (
    MIB,
    check_size,
    create_drive,
    create_plan,
    delete_drive,
    delete_plan,
    discard,
    fill,
    new_drive,
    require_file,
)
from drives.services.places import storage

__all__ = [
    "MIB",
    "check_size",
    "create_drive",
    "create_plan",
    "delete_drive",
    "delete_plan",
    "discard",
    "fill",
    "new_drive",
    "require_file",
    "storage",
]

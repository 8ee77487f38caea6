"""The rules about VMs: the only code that changes one.

Each function checks, records the wish and opens an operation in one transaction; workers do the
work (``lifecycle``, ``snapshotting``, ``cloning``, ``rollback``).
"""

from vms.capacity import host_capacity
from vms.console import ConsolePage, read_console
from vms.queries import counts_by_state
from vms.services.drives import attach_drive, detach_drive, hotplug_problem, rollback_drive
from vms.services.programs import admit_program, ready_vm
from vms.services.rules import wish
from vms.services.sessions import sessions_of, start_session
from vms.services.snapshots import (
    clone_vm,
    delete_vm_snapshot,
    rename_vm_snapshot,
    rollback_vm,
    snapshot_vm,
)
from vms.services.vms import (
    balloon_vm,
    create_vm,
    delete_vm,
    new_name,
    new_vm,
    rename_vm,
    restart_vm,
    start_vm,
    stop_vm,
    update_vm,
)
from vms.shape import USUAL, Shape

__all__ = [
    "USUAL",
    "ConsolePage",
    "Shape",
    "admit_program",
    "attach_drive",
    "balloon_vm",
    "clone_vm",
    "counts_by_state",
    "create_vm",
    "delete_vm",
    "delete_vm_snapshot",
    "detach_drive",
    "host_capacity",
    "hotplug_problem",
    "new_name",
    "new_vm",
    "read_console",
    "ready_vm",
    "rename_vm",
    "rename_vm_snapshot",
    "restart_vm",
    "rollback_drive",
    "rollback_vm",
    "sessions_of",
    "snapshot_vm",
    "start_session",
    "start_vm",
    "stop_vm",
    "update_vm",
    "wish",
]

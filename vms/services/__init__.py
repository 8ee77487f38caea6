"""The rules about VMs: the only code that changes one.

Each function checks, records the wish and opens an operation in one transaction; workers do the
work (``lifecycle``, ``snapshotting``, ``cloning``, ``rollback``).
"""

from vms.capacity import host_capacity
from vms.console import ConsolePage, read_console
from vms.queries import counts_by_state
from vms.services.drives import attach_drive, detach_drive, hotplug_problem, rollback_drive
from vms.services.programs import admit_program, ready_vm
from vms.services.provisioning import (
    change_provisioning,
    clear_provisioning,
    provisioning_of,
    remove_file,
    replace_provisioning,
    run_script_again,
)
from vms.services.rules import wish
from vms.services.sessions import (
    find_session,
    forget_session,
    look_at_session,
    sessions_of,
    signal_session,
    start_named_session,
    start_session,
    type_into_session,
)
from vms.services.snapshots import (
    clone_vm,
    delete_vm_snapshot,
    rename_vm_snapshot,
    rollback_vm,
    snapshot_vm,
)
from vms.services.upgrades import agent_outdated, upgrade_agent
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
    "agent_outdated",
    "attach_drive",
    "balloon_vm",
    "change_provisioning",
    "clear_provisioning",
    "clone_vm",
    "counts_by_state",
    "create_vm",
    "delete_vm",
    "delete_vm_snapshot",
    "detach_drive",
    "find_session",
    "forget_session",
    "host_capacity",
    "hotplug_problem",
    "look_at_session",
    "new_name",
    "new_vm",
    "provisioning_of",
    "read_console",
    "ready_vm",
    "remove_file",
    "rename_vm",
    "rename_vm_snapshot",
    "replace_provisioning",
    "restart_vm",
    "rollback_drive",
    "rollback_vm",
    "run_script_again",
    "sessions_of",
    "signal_session",
    "snapshot_vm",
    "start_named_session",
    "start_session",
    "start_vm",
    "stop_vm",
    "type_into_session",
    "update_vm",
    "upgrade_agent",
    "wish",
]

"""The rules about VMs: the only code that changes one.

Each function checks, records the wish and opens an operation in one transaction; workers do the
work (``lifecycle``, ``snapshotting``, ``cloning``, ``rollback``).
"""

from vms.capacity import host_capacity
from vms.console import ConsolePage, read_console
from vms.queries import counts_by_state
from vms.services.drives import attach_drive, detach_drive, hotplug_problem, rollback_drive
from vms.services.forks import MAX_FORKS, discard_spent_checkpoints, fork_vm
from vms.services.ports import connect_to_port
from vms.services.programs import start_program
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
    checkpoint_vm,
    clone_vm,
    delete_vm_snapshot,
    new_checkpoint,
    rename_vm_snapshot,
    rollback_vm,
    snapshot_vm,
)
from vms.services.suspension import (
    is_asleep,
    pause_vm,
    reach_vm,
    ready_vm,
    resume_vm,
    suspend_vm,
    unpause_vm,
)
from vms.services.upgrades import agent_outdated, upgrade_agent
from vms.services.vms import (
    balloon_vm,
    create_vm,
    delete_vm,
    find_kernel,
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
    "MAX_FORKS",
    "USUAL",
    "ConsolePage",
    "Shape",
    "agent_outdated",
    "attach_drive",
    "balloon_vm",
    "change_provisioning",
    "checkpoint_vm",
    "clear_provisioning",
    "clone_vm",
    "connect_to_port",
    "counts_by_state",
    "create_vm",
    "delete_vm",
    "delete_vm_snapshot",
    "detach_drive",
    "discard_spent_checkpoints",
    "find_kernel",
    "find_session",
    "forget_session",
    "fork_vm",
    "host_capacity",
    "hotplug_problem",
    "is_asleep",
    "look_at_session",
    "new_checkpoint",
    "new_name",
    "new_vm",
    "pause_vm",
    "provisioning_of",
    "reach_vm",
    "read_console",
    "ready_vm",
    "remove_file",
    "rename_vm",
    "rename_vm_snapshot",
    "replace_provisioning",
    "restart_vm",
    "resume_vm",
    "rollback_drive",
    "rollback_vm",
    "run_script_again",
    "sessions_of",
    "signal_session",
    "snapshot_vm",
    "start_named_session",
    "start_program",
    "start_session",
    "start_vm",
    "stop_vm",
    "suspend_vm",
    "type_into_session",
    "unpause_vm",
    "update_vm",
    "upgrade_agent",
    "wish",
]

"""What Nexus does to VMs by their own settings: restarts them, or acts on their silence.

The supervisor calls these; what they do are ordinary operations of the actor ``system``.
"""

from __future__ import annotations

import logging

from nexus_site.core.errors import Conflict, NexusError
from vms import live_drives, restarts
from vms.busy import operations_on, require_free
from vms.models import VM
from vms.services.vms import restart_vm, start_vm, stop_vm

log = logging.getLogger(__name__)

SOON = 1.0  # seconds until a VM that is due, but busy, is looked at again


def start_due() -> float | None:
    """Start the VMs that are due by their restart policies; seconds until this has work again."""
    restarts.forget_old_counts()
    for vm in restarts.due():
        try:
            require_free(vm)
        except Conflict:
            continue  # it is being deleted, copied, …; or its failed start still cleans up
        _start(vm)
    left = restarts.seconds_to_next()
    return max(left, SOON) if left is not None else None


def _start(vm: VM) -> None:
    attempt = vm.restarts + 1
    try:
        reason = f"restart policy: {vm.restart_policy}, attempt {attempt}"
        start_vm(vm, reason=reason, attempt=attempt)
    except NexusError as error:
        log.warning("%s was not started again: %s", vm.name, error.text)
        restarts.put_off(vm)


def act_on_silence(vm: VM) -> None:
    """Do what an unreachable VM wants done, unless somebody works on it or holds it."""
    if vm.unreachable_action == VM.UnreachableAction.KEEP or live_drives.is_held(vm):
        return
    if operations_on(vm).exists():
        return
    last = vm.history.last()
    why = f"unreachable action: {vm.unreachable_action} ({last.reason if last else ''})"
    try:
        if vm.unreachable_action == VM.UnreachableAction.RESTART:
            restart_vm(vm, force=True, reason=why)
        else:
            stop_vm(vm, reason=why)
    except Conflict as error:  # it has moved on, or a drive of its is being copied
        log.info("%s: %s", vm.name, error.text)

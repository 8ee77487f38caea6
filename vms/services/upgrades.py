"""Agents of VMs that run, replaced by this Nexus's own."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from guest_agent.upgrade import is_older
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.busy import require_idle
from vms.models import VM
from vms.services.rules import require_ready
from vms.states import ALIVE


def agent_outdated(vm: VM) -> bool:
    """Whether the VM runs with an agent older than this Nexus's; a start brings this one."""
    return vm.state in ALIVE and bool(vm.agent) and is_older(vm.agent.get("agent_version", ""))


@transaction.atomic
def upgrade_agent(vm: VM) -> Operation:
    """Replace the agent of a VM that is ready, which goes on meanwhile with its sessions.

    Raises ``Conflict`` or ``Retryable`` unless it is ready and idle. Nothing is done, and the
    operation says so, where the agent is not outdated.
    """
    require_ready(vm)
    require_idle(vm)
    return open_operation(
        "vm.agent-upgrade",
        f"Upgrade the agent of VM {vm.name}",
        subject=vm,
        params={"vm": vm.ref},
        deadline=timedelta(minutes=10),
    )

"""Agents of VMs that run, replaced by this Nexus's own."""

from __future__ import annotations

from datetime import timedelta

from django.db import transaction

from guest_agent.upgrade import is_older, version_number
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms.busy import require_idle
from vms.models import VM
from vms.services.rules import require_ready
from vms.states import ALIVE, State

FIRST_TO_FORK = (0, 4, 0)  # the agent that makes of a guest that goes on another one


def agent_outdated(vm: VM) -> bool:
    """Whether the VM runs with an agent older than this Nexus's; a start brings this one."""
    return vm.state in ALIVE and bool(vm.agent) and is_older(vm.agent.get("agent_version", ""))


def fork_problem(vm: VM) -> str:
    """Why other VMs must not go on from its memory; empty where they may. An agent that cannot
    make another guest of what goes on leaves two with the same keys and random numbers."""
    version = vm.agent.get("agent_version", "")
    if not vm.agent or version_number(version) >= FIRST_TO_FORK:
        return ""
    return f"Its agent ({version or 'unknown'}) is too old to make another guest of a copy."


def require_forkable(vm: VM) -> None:
    """Raise ``Conflict`` where ``fork_problem`` has one."""
    if problem := fork_problem(vm):
        upgrade = f"nexusctl vm agent-upgrade {vm.name}"
        first = {
            State.PAUSED: f"Let it go on (nexusctl vm unpause {vm.name}), and upgrade it: ",
            State.SUSPENDED: f"Resume it (nexusctl vm resume {vm.name}), and upgrade it: ",
        }
        raise Conflict(
            f"Nothing can go on from the memory of “{vm.name}”. {problem}",
            hint=first.get(State(vm.state), "Upgrade it, the VM goes on meanwhile: ") + upgrade,
            code="agent-outdated",
        )


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

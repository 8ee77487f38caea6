"""What it takes to replace the agent of a VM that runs: the list of steps."""

from __future__ import annotations

import time

from guest_agent.binary import agent_version
from guest_agent.connection import AgentConnection
from guest_agent.upgrade import upgrade
from nexus_site.core import events
from nexus_site.core.errors import Retryable
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms import supervision
from vms.lifecycle import vm_of
from vms.live_drives import alone_with
from vms.services.rules import require_ready
from vms.services.upgrades import agent_outdated

UPLOAD_TIMEOUT = 50.0  # seconds; less than the supervisor gives a call
HELLO_TIMEOUT = 120.0  # seconds until the new agent has called


def plan(operation: Operation) -> Plan:
    return [
        Step("replace", "Put this Nexus's agent in its place", replace, done=is_current),
        Step("hello", "Wait for the new agent", wait_for_hello),
    ]


def is_current(run: Run) -> str | None:
    vm = vm_of(run)
    return None if agent_outdated(vm) else f"agent {vm.agent.get('agent_version')} is current"


def replace(run: Run) -> str:
    """The agent takes the binary and begins to replace itself; its connection ends here."""
    vm = vm_of(run)
    require_ready(vm)
    old = vm.agent.get("agent_version", "")

    async def call(agent: AgentConnection) -> None:
        await upgrade(agent, timeout=UPLOAD_TIMEOUT)
        await agent.close()  # only a new connection has the new agent's hello

    with alone_with(vm, run):
        supervision.with_agent(vm, call)
    run.keep(old=old)
    return f"agent {old} leaves"


def wait_for_hello(run: Run) -> str:
    """Until the VM is ready with an agent that is not outdated; says which."""
    vm = vm_of(run)
    deadline = time.monotonic() + HELLO_TIMEOUT
    while agent_outdated(vm):
        if time.monotonic() > deadline:
            raise Retryable(
                f"The new agent of “{vm.name}” has not called.",
                hint="If it stays so, restart the VM: it boots with this Nexus's agent.",
                code="agent-gone",
            )
        run.check()
        time.sleep(0.2)
        vm = vm_of(run)
    require_ready(vm)
    version = vm.agent.get("agent_version", agent_version())
    if old := run.made.get("old"):
        events.append("vm.agent_upgraded", vm, before=old, version=version)
    return f"agent {version} said hello"

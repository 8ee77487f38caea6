"""What it takes to make a VM for a pool, to delete such VMs, and to hand one over: the steps.

A VM may be taken as soon as it is ready, and with that is none of this business any more: what
deletes VMs here disowns them first (``refilling.disown``).
"""

from __future__ import annotations

import time

from guest_agent.connection import AgentConnection
from guest_agent.messages import Configuration
from nexus_site.core.errors import NexusError, Retryable
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms import hidden, lifecycle, supervision
from vms.models import VM, Pool
from vms.services import refilling
from vms.services.rules import wish
from vms.states import Desired, State

TELL_SECONDS = 60.0  # for the agent of a VM that was taken
LOOK = 0.2  # seconds until it is asked again


def fill_plan(operation: Operation) -> Plan:
    return [
        Step("kernel", "Prepare kernel and initrd", lifecycle.prepare_kernel, undo=take_away),
        Step("drive", "Make the drive", lifecycle.fill_drive),
        Step(
            "launch",
            "Launch the VMM",
            launch,
            done=lifecycle.already_launched,
            foresee=lifecycle.foresee_hypervisor,
        ),
        Step("agent", "Wait for the agent", lifecycle.wait_for_agent, keeps=True),
        Step("next", "Look what the pool needs next", tend),
    ]


def launch(run: Run) -> str:
    wish(lifecycle.vm_of(run), Desired.RUNNING)
    lifecycle.begin_start(run)
    return lifecycle.launch(run)


def tend(run: Run) -> None:
    pool = _pool(run.operation)
    if pool is not None:
        refilling.tend(pool, besides=run.operation)


def take_away(run: Run) -> None:
    """The VM with all that is of it, unless somebody has taken it."""
    _remove(run.params["vm"])


def fill_failed(operation: Operation, error: NexusError) -> None:
    """The pool says why, and waits before it tries again."""
    pool = _pool(operation)
    if pool is not None and error.code != "cancelled":
        refilling.note_failure(pool, error.text)


def _pool(operation: Operation) -> Pool | None:
    return Pool.objects.filter(pk=NexusID.parse(operation.params["pool"])).first()


# Deleting


def clear_plan(operation: Operation) -> Plan:
    count = len(operation.params["vms"])
    what = "1 VM that waits" if count == 1 else f"{count} VMs that wait"
    return [Step("vms", f"Delete {what}", clear)]


def clear(run: Run) -> str:
    """All that can be deleted; raises why one cannot."""
    refs, problem = run.params["vms"], None
    for done, ref in enumerate(refs):
        run.progress(done / len(refs))
        try:
            _remove(ref)
        except NexusError as error:
            problem = error
    if problem is not None:
        raise problem
    return f"{len(refs)} deleted" if refs else "none waited"


def _remove(ref: str) -> None:
    vm = VM.objects.filter(pk=NexusID.parse(ref)).first()
    if vm is not None and refilling.disown(vm):
        hidden.discard(vm)


# Taking


def take_plan(operation: Operation) -> Plan:
    return [Step("name", "Tell the guest its name", tell)]


def tell(run: Run) -> str:
    """The guest is called as its VM is. One that is gone meanwhile is told when it is back."""
    deadline = time.monotonic() + TELL_SECONDS
    while True:
        vm = lifecycle.vm_of(run)
        if vm.state != State.READY:
            return f"it is {vm.state}, and will be told when it is ready again"
        configuration = Configuration(hostname=vm.name)

        async def call(
            agent: AgentConnection, configuration: Configuration = configuration
        ) -> object:
            return await agent.configure(configuration)

        try:
            supervision.with_agent(vm, call)
        except Retryable:
            if time.monotonic() > deadline:
                raise
            run.check()
            time.sleep(LOOK)
        else:
            return f"it is called {vm.name}"

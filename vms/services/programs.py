"""Programs that people and agents run in VMs."""

from __future__ import annotations

from guest_agent.exec import Program
from nexus_site.core import events
from nexus_site.core.ids import resolve
from vms.models import VM
from vms.services.rules import require_ready

MAX_NAME = 100  # characters of a program's name that history keeps


def ready_vm(ref: str) -> VM:
    """The VM called ``ref``, whose agent may be asked now.

    Raises ``NotFound``, and ``Conflict`` or ``Retryable`` where the VM is not ready.
    """
    vm = resolve(VM.objects.only("name", "state"), ref)  # all that is asked of it
    require_ready(vm)
    return vm


def admit_program(ref: str, program: Program) -> VM:
    """The same, where ``program`` may be started now (``GatewayAgent.start``).

    History says who ran what: the program's name, never its arguments, variables or input.
    """
    vm = ready_vm(ref)
    events.append("vm.exec", vm, program=name_of(program))
    return vm


def name_of(program: Program) -> str:
    """What history calls it."""
    name = "login shell" if program.shell else program.argv[0]
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"

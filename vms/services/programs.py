"""Programs that people and agents run in VMs."""

from __future__ import annotations

from guest_agent.exec import Program
from nexus_site.core import events
from nexus_site.core.ids import resolve
from vms.models import VM
from vms.services.rules import require_ready

MAX_NAME = 100  # characters of a program's name that history keeps


def admit_program(ref: str, program: Program) -> VM:
    """The VM called ``ref``, where ``program`` may be started now (``GatewayAgent.start``).

    History says who ran what: the program's name, never its arguments, variables or input.
    Raises ``NotFound``, and ``Conflict`` or ``Retryable`` where the VM is not ready.
    """
    vm = resolve(VM.objects.all(), ref)
    require_ready(vm)
    events.append("vm.exec", vm, program=_shortened(program.argv[0]))
    return vm


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_NAME else f"{name[: MAX_NAME - 1]}…"

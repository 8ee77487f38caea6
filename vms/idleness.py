"""VMs that suspend themselves: since when one has done no work, and what counts as work.

Work is an operation on the VM, a program that somebody waits for, an open connection to one of its
ports, what goes to and from its agent, its sessions' output, and a CPU or a network that does more
than an idle guest's. The supervisor asks ``is_due`` on its timer. What the sessions have written is
noted after the last other work, and looked at again when the VM is due: a shell that waits for its
next command has written no more.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from django.db.models import Q
from django.utils import timezone

from guest_agent.sessions import SessionState
from nexus_site.core.errors import NexusError
from vms.busy import operations_on
from vms.models import VM, Sample
from vms.services.suspension import suspend_vm
from vms.states import State
from vms.suspending import WHEN_IDLE

log = logging.getLogger(__name__)

CPU = 0.05  # of a guest's CPUs: what an idle one's services and its agent use is less
VMM_CPU = 0.1  # of one of the host's: a guest that has to wait for the host counts that as work
NETWORK = 1024.0  # bytes in a second

Output = frozenset[tuple[str, int]]

_noted: dict[int, tuple[datetime | None, Output]] = {}  # of VMs that run: after which work, what


def candidates() -> list[VM]:
    """VMs that are ready, and suspend themselves when they are idle."""
    rows = VM.objects.filter(state=State.READY, purpose=VM.Purpose.USE)
    return list(rows.filter(idle_suspend_minutes__gt=0))


def is_due(vm: VM, quiet: float) -> bool:
    """Whether the VM has done no work for so long that it is to be suspended.

    ``quiet``: seconds since somebody last used its agent, as ``Gateway.quiet_seconds`` has it.
    """
    active = _active_at(vm, quiet)
    if vm.active_at is None or active > vm.active_at:
        _write(vm, active)
    return timezone.now() - active >= timedelta(minutes=vm.idle_suspend_minutes or 0)


def is_noted(vm: VM) -> bool:
    """Whether it is known what the sessions had written after the VM's last work."""
    return vm.pk in _noted and _noted[vm.pk][0] == vm.active_at


def note(vm: VM, sessions: Iterable[SessionState]) -> None:
    """Remember what the sessions have written until now."""
    _noted[vm.pk] = (vm.active_at, _output(sessions))


def forget(vm: VM) -> None:
    """Its VMM has ended, and with it what was noted of it."""
    _noted.pop(vm.pk, None)


def are_quiet(vm: VM, sessions: Sequence[SessionState]) -> bool:
    """Whether the VM's sessions have written nothing since that was noted; else it is at work now.
    A shell that waits for its next command is quiet."""
    quiet = _output(sessions) <= _noted.get(vm.pk, (None, frozenset()))[1]
    if not quiet:
        _write(vm, timezone.now())
    note(vm, sessions)
    return quiet


def _output(sessions: Iterable[SessionState]) -> Output:
    return frozenset((session.id, session.size) for session in sessions if session.exit is None)


def suspend(vm: VM) -> None:
    """Suspend a VM that is idle, unless something else works on it by now."""
    minutes = vm.idle_suspend_minutes
    try:
        suspend_vm(vm, reason=WHEN_IDLE, words=f"idle for {minutes} min")
    except NexusError as error:
        log.info("%s was not suspended: %s", vm.name, error.text)


def _active_at(vm: VM, quiet: float) -> datetime:
    now = timezone.now()
    if operations_on(vm).exists():
        return now
    active = max(vm.active_at or vm.state_since, vm.state_since)
    if math.isfinite(quiet):
        active = max(active, now - timedelta(seconds=quiet))
    return max(active, _busy_at(vm, active) or active)


def _busy_at(vm: VM, after: datetime) -> datetime | None:
    """When its CPUs or its network were last at work."""
    works = Q(cpu__gt=CPU) & (Q(vmm_cpu__gt=VMM_CPU) | Q(vmm_cpu=None))
    busy = works | Q(net_rx__gt=NETWORK) | Q(net_tx__gt=NETWORK)
    rows = Sample.objects.filter(busy, vm=vm, at__gt=int(after.timestamp()))
    at = rows.order_by("-at").values_list("at", flat=True).first()
    return datetime.fromtimestamp(at, tz=timezone.get_current_timezone()) if at else None


def _write(vm: VM, active: datetime) -> None:
    VM.objects.filter(pk=vm.pk).update(active_at=active)
    vm.active_at = active

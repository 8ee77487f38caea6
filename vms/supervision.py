"""How steps reach the supervisor that runs in the same worker, if one does.

The supervisor puts itself here when it starts; without it (a test, a management command)
waking does nothing and agents cannot be asked.
"""

from __future__ import annotations

from typing import Protocol

from vms.models import VM


class Supervising(Protocol):
    """What the supervisor offers to other threads."""

    def wake(self) -> None: ...

    def ask_to_shut_down(self, vm: VM) -> bool: ...


_supervisor: Supervising | None = None


def set_supervisor(supervisor: Supervising | None) -> None:
    """Make ``supervisor`` the one of this process; None when it ends."""
    global _supervisor
    _supervisor = supervisor


def wake() -> None:
    """Something changed: reconcile now instead of at the next tick."""
    if _supervisor is not None:
        _supervisor.wake()


def ask_to_shut_down(vm: VM) -> bool:
    """Ask the VM's agent to power its guest off; False when there is no agent to ask."""
    return _supervisor.ask_to_shut_down(vm) if _supervisor is not None else False

"""How steps and the supervisor, which run in the same worker, reach each other.

The supervisor puts itself here when it starts; without it (a test, a management command)
waking does nothing and agents cannot be asked.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from guest_agent.connection import AgentConnection
from nexus_site.core.errors import Retryable
from vms.models import VM

T = TypeVar("T")

FREEZE_SECONDS = 30.0  # after which an agent thaws what it has frozen, whatever the host does


class Supervising(Protocol):
    """What the supervisor offers to other threads."""

    def wake(self) -> None: ...

    def ask_to_shut_down(self, vm: VM) -> bool: ...

    def freeze(self, vm: VM) -> bool: ...

    def thaw(self, vm: VM) -> bool: ...

    def with_agent(self, vm: VM, call: Callable[[AgentConnection], Awaitable[T]]) -> T: ...

    def quiet_seconds(self, vm: VM) -> float: ...


_supervisor: Supervising | None = None
_moved = threading.Condition()
_moves = 0


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


def freeze(vm: VM) -> bool:
    """Have the VM's agent write out and freeze its file systems; False where it cannot.

    It thaws them by itself after ``FREEZE_SECONDS`` of the guest's time, and when nobody is
    connected to it any more.
    """
    return _supervisor.freeze(vm) if _supervisor is not None else False


def thaw(vm: VM) -> bool:
    """Have the VM's agent thaw its file systems; False when there is no agent to ask."""
    return _supervisor.thaw(vm) if _supervisor is not None else False


def with_agent(vm: VM, call: Callable[[AgentConnection], Awaitable[T]]) -> T:
    """What ``call`` makes of the VM's agent; raises what it raises, and ``Retryable`` when
    there is no agent to ask."""
    if _supervisor is None:
        raise no_agent(vm)
    return _supervisor.with_agent(vm, call)


def quiet_seconds(vm: VM) -> float:
    """Since somebody last used the VM's agent: 0 while a program runs for somebody, infinity
    where nobody has."""
    return _supervisor.quiet_seconds(vm) if _supervisor is not None else math.inf


def no_agent(vm: VM) -> Retryable:
    return Retryable(f"The agent of “{vm.name}” does not answer.", code="agent-gone")


def announce_move() -> None:
    """Some VM has moved, or is being prepared, in this process; whoever waits looks again."""
    global _moves
    with _moved:
        _moves += 1
        _moved.notify_all()


def moves() -> int:
    """How many have been announced; ask before you look at what you wait for."""
    return _moves


def wait_for_move(since: int, seconds: float) -> None:
    """Until some VM has moved in this process since there were ``since`` moves, at most
    ``seconds``; other processes are not heard."""
    with _moved:
        _moved.wait_for(lambda: _moves != since, seconds)

"""What reality says of a VM, written down: it runs, it answers, it has ended, it failed.

Called by the steps and by the supervisor alike, in any order and more than once: each
function looks at the state and does what is still to be done.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from django.db import transaction
from django.db.models import Max
from django.utils import timezone
from django.utils.dateparse import parse_datetime

from images.models import Kernel
from nexus_site.core import events
from nexus_site.core.errors import Broken, NexusError
from vms import restarts
from vms.choice import Choice, label
from vms.console import console_tail, panic
from vms.drivers import driver_of
from vms.hypervisors.base import Exit, Handle
from vms.models import VM, Boot
from vms.paths import vm_dir
from vms.resuming import WORDS_MOST, Start, forget, spend
from vms.states import ALIVE, State
from vms.transitions import try_move


@transaction.atomic
def open_boot(vm: VM, kernel: Kernel, choice: Choice) -> Boot:
    """The record of the start under way; an interrupted start goes on with its own.

    From now on the VM's VMM is looked for where this driver leaves it.
    """
    probe = choice.probe
    vm.vmm = probe.name
    vm.save(update_fields=["vmm"])
    boot = Boot.objects.filter(vm=vm, handle={}, ended_at=None).first()
    if boot is None:
        last = Boot.objects.filter(vm=vm).aggregate(last=Max("number"))["last"] or 0
        boot = Boot(vm=vm, number=last + 1)
    boot.kernel = kernel
    boot.hypervisor, boot.hypervisor_version = probe.name, probe.version
    boot.accelerator, boot.launched_at = probe.accelerator, timezone.now()
    boot.choice = choice.reason[:WORDS_MOST]
    boot.save()
    return boot


@transaction.atomic
def vmm_runs(vm: VM, handle: Handle, started: Start | None = None) -> None:
    """A VMM runs for ``vm``: keep its identity; a starting VM is ``running`` now.

    ``started``: how, where that is known; not for one that is found running.
    """
    boot = Boot.objects.filter(vm=vm, ended_at=None).first()
    detail = {"pid": handle.pid, "accelerator": handle.accelerator}
    if boot is not None:
        boot.handle = handle.to_dict()
        boot.accelerator = handle.accelerator
        boot.jailed = driver_of(vm).agent_socket(vm_dir(vm)).uid is not None
        if started is not None:
            boot.resumed_from = started.memory or ""
            boot.resumed = started.words[:WORDS_MOST]
        boot.save(update_fields=["handle", "accelerator", "jailed", "resumed_from", "resumed"])
        detail["resumed" if boot.resumed_from else "booted"] = boot.resumed
        detail["choice"] = f"{label(boot.hypervisor)} {boot.hypervisor_version}: {boot.choice}"
    spend(vm)
    verb = "resumed" if boot is not None and boot.resumed_from else "booted"
    reason = (
        f"the VMM runs (pid {handle.pid}), {verb}"
        if started
        else f"the VMM runs (pid {handle.pid})"
    )
    try_move(vm, State.RUNNING, reason, detail=detail)


@transaction.atomic
def agent_said_hello(vm: VM, hello: dict[str, Any], at: datetime, warning: str = "") -> None:
    """The agent has called (``at``) and was told who it is: the VM is ``ready``."""
    ready(vm, note_hello(vm, hello, at), warning)


def ready(vm: VM, reason: str, warning: str = "", **detail: str) -> None:
    """The guest has all that it is to have, or there is a ``warning``."""
    try_move(vm, State.READY, reason, detail=detail | ({"warning": warning} if warning else {}))


@transaction.atomic
def note_hello(vm: VM, hello: dict[str, Any], at: datetime) -> str:
    """Keep what the agent said; returns that it did, in words for the history."""
    VM.objects.filter(pk=vm.pk).update(agent=hello, heartbeat_at=timezone.now())
    boot = Boot.objects.filter(vm=vm, ended_at=None).first()
    first = boot is not None and boot.hello_at is None
    if boot is not None and first:
        Boot.objects.filter(pk=boot.pk).update(hello_at=at)
        boot.hello_at = at
    version = hello.get("agent_version", "")
    if first and boot is not None and boot.seconds_to_hello is not None:
        return f"agent {version} said hello after {boot.seconds_to_hello:.1f} s"
    return f"agent {version} answers again{_after_silence(vm)}"


def _after_silence(vm: VM) -> str:
    """How long an unreachable VM's agent was silent."""
    last = vm.history.last()
    if last is None or last.to_state != State.UNREACHABLE:
        return ""
    heard = parse_datetime(last.detail.get("last_heartbeat") or "") or last.at
    return f" after {(timezone.now() - heard).total_seconds():.0f} s of silence"


@transaction.atomic
def guest_settled(vm: VM, seconds: float) -> None:
    """The distribution's init has started its services, ``seconds`` after the kernel's start."""
    row = VM.objects.filter(pk=vm.pk).first()
    if row is None or row.agent.get("boot", {}).get("settled") == seconds:
        return
    row.agent["boot"] = row.agent.get("boot", {}) | {"settled": seconds}
    row.save(update_fields=["agent"])
    events.append("vm.settled", vm, seconds=seconds)


def agent_is_silent(vm: VM, reason: str) -> None:
    """The VMM runs, the agent does not answer."""
    last = VM.objects.filter(pk=vm.pk).values_list("heartbeat_at", flat=True).first()
    try_move(
        vm,
        State.UNREACHABLE,
        reason,
        detail={"last_heartbeat": last.isoformat() if last else None},
    )


def clock_corrected(vm: VM, drift: str) -> None:
    """The guest's clock was off, and is set again."""
    events.append("vm.clock_corrected", vm, drift=drift)


def guest_halted(vm: VM, handle: Handle) -> None:
    """The guest has switched itself off, which does not end its VMM: that is killed."""
    with transaction.atomic():
        if not _is_current(vm, handle):
            return
        try_move(vm, State.STOPPING, "the guest shut itself down", only_from=ALIVE)
    driver_of(vm).kill(handle)


def keep_metrics(vm: VM, handle: Handle, counters: dict[str, Any]) -> None:
    """The VMM's own counters, without those that have counted nothing."""
    if counters and _is_current(vm, handle):
        Boot.objects.filter(vm=vm, ended_at=None).update(metrics=_counted(counters))


def _counted(counters: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, value in counters.items():
        found = _counted(value) if isinstance(value, dict) else value
        if found:
            kept[name] = found
    return kept


def _is_current(vm: VM, handle: Handle) -> bool:
    """Whether ``handle`` is the VMM that was launched last, and has not ended as far as is known.

    Another may run by now: who watches the old one is told late that it ended.
    """
    boot = Boot.objects.filter(vm=vm, ended_at=None).first()
    identity = (handle.pid, handle.started)
    return boot is not None and (boot.handle.get("pid"), boot.handle.get("started")) == identity


@transaction.atomic
def vmm_ended(vm: VM, ended: Exit, handle: Handle | None = None) -> None:
    """The VMM is gone: stopped if that was asked for, or the guest's own doing; else crashed.

    A VM that is ``starting`` is left to its start operation, which knows more; and nothing is
    done for a VMM (``handle``) that is not the VM's any more.
    """
    vm.refresh_from_db(fields=["state", "vmm"])
    if vm.state == State.STARTING or (handle and not _is_current(vm, handle)):
        return
    lines = console_tail(vm)
    how = f"the VMM {'was ' if ended.signal else ''}{ended.describe()}"
    record = {
        "exit_code": ended.code,
        "signal": ended.signal,
        "ended_at": _iso(ended.at),
        "exit": "suspended" if vm.state == State.SUSPENDED else ended.describe(),
    }
    _close_boot(vm, record)
    if vm.state == State.STOPPING:
        _stopped(vm, how, record)
    elif vm.state in ALIVE:
        panicked = panic(vm)
        if panicked and panicked not in lines:  # a long trace came after it
            lines.insert(0, panicked)
        post_mortem = record | {"console": lines, "last_heartbeat": _last_heartbeat(vm)}
        if ended.code == 0 and not panicked:
            try_move(vm, State.STOPPING, "the guest shut itself down")
            try_move(vm, State.STOPPED, how, detail=record)
        else:
            reason = how + (": the guest panicked" if panicked else "")
            try_move(vm, State.CRASHED, reason, detail=post_mortem)
        restarts.plan(vm)
    driver_of(vm).cleanup(vm_dir(vm))


def _stopped(vm: VM, how: str, record: dict[str, Any]) -> None:
    """stopping → stopped; or failed, where it was stopped because it had (``failure``). The
    memory of one that was suspended is given up."""
    forget(vm)
    last = vm.history.last()
    failure = last.detail.get("failure") if last else None
    if failure:
        try_move(vm, State.FAILED, failure["text"], detail=record | failure)
        restarts.plan(vm)
    else:
        try_move(vm, State.STOPPED, how, detail=record)
        restarts.plan_after_stop(vm)


@transaction.atomic
def start_failed(vm: VM, error: NexusError) -> None:
    """starting → failed, with the VMM's own words."""
    detail = error.record() | {"console": console_tail(vm)}
    _close_boot(vm, {"exit": error.text})
    if vm.saved_memory:  # nothing is lost: its memory is where it was
        try_move(vm, State.SUSPENDED, error.text, detail=detail)
    elif try_move(vm, State.FAILED, error.text, detail=detail):
        restarts.plan(vm, error)


def end_vmm(vm: VM) -> Exit:
    """Kill the VM's VMM if one runs, and remove what it left; logs stay."""
    driver = driver_of(vm)
    found = driver.adopt(vm_dir(vm))
    if isinstance(found, Handle):
        found = driver.kill(found)
    driver.cleanup(vm_dir(vm))
    return found or Exit(None, None, None)


def not_ready(vm: VM) -> NexusError:
    """Why a VM that was started is not ready, with the last lines of its console."""
    tail = "\n".join(console_tail(vm))
    if vm.state in (State.STARTING, State.RUNNING, State.UNREACHABLE):
        return Broken(
            f"The VM “{vm.name}” runs, but its agent has not called.",
            detail=tail,
            hint=f"See how far it came: nexusctl vm logs {vm.name}",
            code="agent-silent",
        )
    return Broken(
        f"The VM “{vm.name}” is {vm.state}; it did not become ready.",
        detail=tail,
        hint=f"See what happened: nexusctl vm history {vm.name}",
        code="not-ready",
    )


def _close_boot(vm: VM, record: dict[str, Any]) -> None:
    for boot in Boot.objects.filter(vm=vm, ended_at=None):
        boot.ended_at = timezone.now()
        boot.exit = record
        if boot.handle:
            with suppress(NexusError):  # most drivers know nothing of one that has ended
                last = driver_of(vm).metrics(Handle.from_dict(boot.handle))
                boot.metrics = _counted(last) or boot.metrics
        boot.save(update_fields=["ended_at", "exit", "metrics"])
        events.append("vm.boot_ended", vm, boot=boot.number, exit=record["exit"])


def _last_heartbeat(vm: VM) -> str | None:
    at = VM.objects.values_list("heartbeat_at", flat=True).get(pk=vm.pk)
    return at.isoformat() if at else None


def _iso(seconds: float | None) -> str | None:
    return datetime.fromtimestamp(seconds, UTC).isoformat() if seconds else None

"""What a VM runs on: by its wish, by the server's setting, and by what works on this host.

Workers ask the drivers, and keep what they said. Others, who may start nothing, read that: as
long as the host has not visibly changed since, it foretells what the worker will choose.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from django.conf import settings

from images import services as image_services
from images.models import Kernel
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.models import Setting
from vms.drivers import FIRECRACKER, QEMU, driver_for
from vms.hypervisors.base import Probe, Problem
from vms.models import VM

AUTO = VM.Hypervisor.AUTO.value
KVM = Path("/dev/kvm")
KEPT = "vms.probe."
Host = dict[str, str | bool]
UNKNOWN = "The worker has not looked at this host yet; it does so within a minute."


@dataclass(frozen=True)
class Choice:
    """A hypervisor, as it was found on this host, and why it is that one."""

    probe: Probe
    reason: str

    @property
    def name(self) -> str:
        return self.probe.name

    def __str__(self) -> str:
        how = {"kvm": " with KVM", "tcg": " in emulation"}.get(self.probe.accelerator, "")
        return f"{label(self.name)} {self.probe.version}{how}: {self.reason}"


class _NotKnown(Exception):
    """Nobody has asked yet, or the host is another one since."""


def choose(vm: VM, kernel: Path) -> Choice:
    """What the start of ``vm`` with ``kernel`` uses. For workers: a guest may be tried.

    Raises ``Conflict`` with what is missing, and what to do, where it cannot be as wished.
    """
    host, kept = _host(), _kept()
    if saver := _saver(vm):
        found = _ask(saver, kernel, host, kept)
        if not found.usable:
            raise _unusable(found)
        return Choice(found, "its memory was saved by it")
    return _decide(vm.hypervisor, lambda name: _ask(name, kernel, host, kept))


def _saver(vm: VM) -> str:
    """The hypervisor that alone can load the memory which the VM goes on from; empty for none."""
    checkpoint = vm.resume_from
    saved = vm.saved_memory or (checkpoint.memory_of if checkpoint else {})
    return str(saved.get("hypervisor", ""))


def foresee(wish: str) -> Choice | None:
    """What a start would choose, as far as it is known without asking; else None.

    Raises ``Conflict`` where it is known that it cannot be as wished.
    """
    host, kept = _host(), _kept()
    try:
        return _decide(wish, lambda name: _remembered(kept.get(name), host))
    except _NotKnown:
        return None


def expectation(wish: str) -> tuple[str, str]:
    """For people: which hypervisor a start would use ("" for none, or for not known), and why."""
    try:
        choice = foresee(wish)
    except NexusError as error:
        return "", f"{error.text} {error.hint}".strip()
    return (choice.name, choice.reason) if choice else ("", UNKNOWN)


def foretold(wish: str) -> str:
    """The same in a line."""
    name, reason = expectation(wish)
    return f"{label(name)}: {reason}" if name else reason


def require_usable(wish: str) -> None:
    """Raise ``Conflict`` for a wish that is known not to be fulfilled here.

    Not for QEMU, which may have come since: that is found out at the start.
    """
    if wish == FIRECRACKER:
        foresee(wish)


def probe(name: str, kernel: Path | None = None) -> Probe:
    """What the driver finds on this host now; kept for those who may not ask. For workers.

    ``kernel`` is what a guest is tried with, where that was never done; else the default one.
    """
    return _ask(name, kernel or default_kernel(), _host(), _kept())


def has_changed() -> bool:
    """Whether what is kept is of a host that is another one now; three cheap queries."""
    host = _host()
    return any(value["host"] != host for value in _kept().values())


def default_kernel() -> Path | None:
    """The file of the default kernel, if a server has one yet."""
    row = Kernel.objects.filter(arch=image_services.host_arch(), is_default=True).first()
    path = image_services.kernel_dir(row) / "vmlinux" if row else None
    return path if path and path.exists() else None


def label(name: str) -> str:
    """A hypervisor's name as people write it."""
    return str(dict(VM.Hypervisor.choices).get(name, name))


def _ask(name: str, kernel: Path | None, host: Host, kept: dict[str, Any]) -> Probe:
    """What the driver finds; written down where that is not what is ``kept``."""
    found = driver_for(name, kernel).probe()
    said = asdict(found) | {"problems": [asdict(problem) for problem in found.problems]}
    value = {"host": host, "probe": said}
    if kept.get(name) != value:
        Setting.objects.update_or_create(pk=KEPT + name, defaults={"value": value})
    return found


def _kept() -> dict[str, Any]:
    """What drivers said last, by their names."""
    rows = Setting.objects.filter(key__startswith=KEPT)
    return {row.key.removeprefix(KEPT): row.value for row in rows}


def _decide(wish: str, ask: Callable[[str], Probe]) -> Choice:
    named = wish if wish != AUTO else settings.NEXUS.hypervisor
    if named != AUTO:
        found = ask(named)
        if not found.usable:
            raise _unusable(found)
        whose = "the VM wishes for it" if wish != AUTO else "this server's setting"
        return Choice(found, whose)
    firecracker = ask(FIRECRACKER)
    if firecracker.usable and not firecracker.problems:
        return Choice(firecracker, "the best that works here")
    qemu = ask(QEMU)
    if qemu.usable:
        return Choice(qemu, _why_not(firecracker))
    if firecracker.usable:
        return Choice(firecracker, _why_not(qemu))
    raise _unusable(qemu)


def _why_not(found: Probe) -> str:
    """Why a hypervisor was passed over."""
    what = "has limits here" if found.usable else "is not usable here"
    text = found.problems[0].text if found.problems else ""
    return f"{label(found.name)} {what}: {text}".rstrip(": .")


def _unusable(found: Probe) -> Conflict:
    problem = found.problems[0] if found.problems else Problem("Nobody knows why.", "")
    others = [other.text for other in found.problems[1:]]
    return Conflict(
        f"{label(found.name)} is not usable here: {problem.text}",
        detail="\n".join(others),
        hint=problem.fix if problem.command in problem.fix else f"{problem.fix} {problem.command}",
        code="hypervisor-unusable",
    )


def _remembered(kept: dict[str, Any] | None, host: Host) -> Probe:
    if kept is None or kept["host"] != host:
        raise _NotKnown
    if host["release"] and not host["kernel"]:  # the first start tries KVM
        raise _NotKnown
    problems = tuple(Problem(**problem) for problem in kept["probe"]["problems"])
    return Probe(**kept["probe"] | {"problems": problems})


def _host() -> Host:
    """What, when it changes, makes drivers answer otherwise; found out at no cost."""
    release = image_services.default_release()
    return {
        "release": release.version if release else "",
        "kernel": default_kernel() is not None,
        "kvm": os.access(KVM, os.R_OK | os.W_OK),
    }

"""Warm templates: which one a VM can go on from, and what must be the same for that."""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction
from django.db.models import F
from django.utils import timezone

from drives import services as drive_services
from drives.models import Drive
from guest_agent.binary import agent_digest, host_tsc_khz
from images.models import Kernel
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError, Retryable
from nexus_site.core.models import Setting
from nexus_site.core.steps import Run
from vms.choice import Choice, foresee
from vms.models import VM, Memory, VMSnapshot, WarmTemplate
from vms.shape import LIMITS

CPUINFO = Path("/proc/cpuinfo")
GONE = "warm-template-gone"
TSC_KEPT = "warm.tsc_khz"
TSC_TOLERANCE = 0.001  # of a frequency that is measured anew by each process
NONE_YET = "there is no warm template yet"
#: Facts about the host, and what is said of a template when one is not as it was.
HOST_FACTS = {
    "agent": "its agent is not the current one",
    "kernel_arguments": "guests get other kernel arguments now",
    "cpu": "the host has another processor",
    "tsc_mhz": "the host's time stamp counter runs at another frequency",
}


@dataclass(frozen=True)
class Fresh:
    """What a VM is about to be started with, or was."""

    kernel: Kernel
    choice: Choice


def facts(vm: VM, fresh: Fresh, root: Drive | None = None) -> dict[str, Any]:
    """All that must be the same where a guest of the VM's image is to go on; the key's content.

    ``root``: its root drive, where that is not in it yet.
    """
    root, probe = root or _root(vm), fresh.choice.probe
    return {
        "image": root.image.ref if root and root.image else "",
        "disk_bytes": root.size_bytes if root else 0,
        "kernel": fresh.kernel.sha256,
        "hypervisor": probe.name,
        "hypervisor_version": probe.version,
        "accelerator": probe.accelerator,
        "vcpu_count": vm.vcpu_count,
        "mem_size_mib": vm.mem_size_mib,
        "limits": [getattr(vm, name) for name, *_ in LIMITS],
        **host_facts(fresh.kernel.arch),
    }


def host_facts(arch: str) -> dict[str, Any]:
    """Those facts that are the same for every VM on this host."""
    return {
        "agent": agent_digest(arch),
        "kernel_arguments": settings.NEXUS.guest_kernel_args,
        "cpu": _cpu_model(),
        "tsc_mhz": _tsc_mhz(),
    }


def key_of(facts: dict[str, Any]) -> str:
    """A SHA-256 over the facts, in hex."""
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def untouched_root(vm: VM) -> Drive | None:
    """The VM's only drive, if it is an image's copy that no guest has had; else None."""
    root = _root(vm)
    return root if _is_untouched(vm, root) else None


def _is_untouched(vm: VM, root: Drive | None) -> bool:
    if root is None or root.origin != Drive.Origin.IMAGE or root.used or root.image is None:
        return False
    return len(vm.attachments.all()) == 1


def _root(vm: VM) -> Drive | None:
    writable = (a.drive for a in vm.attachments.all() if a.is_root and not a.read_only)
    return next(writable, None)


def find(vm: VM, fresh: Fresh) -> tuple[WarmTemplate | None, str]:
    """The template that the VM can go on from; or None, and why there is none."""
    if not settings.NEXUS.warm_templates:
        return None, "warm templates are switched off"
    if vm.purpose == VM.Purpose.WARM:
        return None, "it boots to become a warm template"
    root = untouched_root(vm)
    if root is None:
        return None, "its drives have been used before"
    return _find(vm, root, fresh)


def _find(vm: VM, root: Drive, fresh: Fresh) -> tuple[WarmTemplate | None, str]:
    rows = WarmTemplate.objects.select_related("image", "checkpoint")
    found = rows.filter(key=key_of(facts(vm, fresh, root))).first()
    if found is None:
        return None, NONE_YET
    if found.state != WarmTemplate.State.READY or found.checkpoint is None:
        return None, f"its warm template is {found.get_state_display()}"
    return found, ""


def fill_for_start(root: Drive, vm: VM, run: Run) -> str:
    """The storage of a new drive, unless the start that follows makes it from a template's.

    ``vm`` need not be saved yet. A start that does not come as far as that sees to it that the
    drive is there all the same (``restore_drive``).
    """
    if not run.params.get("cold") and is_to_be_made(root) and _will_make(vm, root):
        return f"{root.name}, made of a warm template's when the VM starts"
    return drive_services.fill(root, run)


def _will_make(vm: VM, root: Drive) -> bool:
    """Whether a start of the VM makes ``root`` from a template's, as far as is known."""
    kernel = vm.kernel or Kernel.objects.filter(is_default=True).first()
    if not settings.NEXUS.warm_templates or vm.purpose == VM.Purpose.WARM or kernel is None:
        return False
    try:
        choice = foresee(vm.hypervisor)
        return choice is not None and _find(vm, root, Fresh(kernel, choice))[0] is not None
    except NexusError:  # the start says why
        return False


def is_to_be_made(drive: Drive) -> bool:
    """Whether the drive is an image's, and is made by the start of its VM."""
    return drive.state == Drive.State.CREATING and drive.origin == Drive.Origin.IMAGE


@contextmanager
def giving_drive(vm: VM, template: WarmTemplate) -> Iterator[tuple[VMSnapshot, Callable[[], None]]]:
    """Make the VM's drive, or make it anew, as the template's guest left its own: the memory to
    load, and what to call before a guest goes on, since the drive is whole only then.

    Raises ``Conflict`` where the template is gone by now.
    """
    checkpoint, root = template.checkpoint, untouched_root(vm)
    part = checkpoint.parts.select_related("snapshot__drive").first() if checkpoint else None
    if checkpoint is None or part is None or root is None:
        raise Conflict("The warm template has been deleted meanwhile.", code=GONE)
    whole = drive_services.begin_refill(root, part.snapshot)
    try:
        yield checkpoint, whole
    except BaseException:
        with suppress(NexusError):
            whole()  # nobody writes to it any more
        raise


def restore_drive(vm: VM) -> None:
    """The VM's drive is an untouched copy of its image: made now if it was left to the start, and
    made anew if a template's was tried on it (its boot says so)."""
    root = _root(vm)
    if root is None:
        return
    tried = _is_untouched(vm, root) and vm.boots.filter(resumed_from=Memory.WARM).exists()
    if tried or is_to_be_made(root):
        drive_services.refill(root)


def hit(template: WarmTemplate) -> None:
    """A VM goes on from it."""
    rows = WarmTemplate.objects.filter(pk=template.pk)
    rows.update(hits=F("hits") + 1, last_hit_at=timezone.now())


def missed(template: WarmTemplate, error: NexusError) -> None:
    """A VM could not go on from it: nobody tries it again, and pruning frees its storage."""
    if error.code == GONE or isinstance(error, Retryable):
        return
    fail(template, error)


@transaction.atomic
def fail(template: WarmTemplate, error: NexusError) -> None:
    """It is of no use, or was never made; it is tried again when somebody asks for that."""
    problem = f"{error.text} {error.detail}".strip()
    rows = WarmTemplate.objects.filter(pk=template.pk)
    if rows.update(state=WarmTemplate.State.FAILED, problem=problem):
        events.append("warm_template.failed", template, text=error.text)


def why_stale(template: WarmTemplate) -> str:
    """Why no VM can go on from it on this host any more, as far as is known; empty: one can."""
    if template.image is None or template.kernel is None:
        return "its image has been deleted" if template.image is None else "its kernel is gone"
    now, then = host_facts(template.kernel.arch), template.facts
    for name, words in HOST_FACTS.items():
        if now[name] != then[name]:
            return words
    try:
        choice = foresee(then["hypervisor"])
    except NexusError as error:
        return f"its hypervisor is not usable here any more: {error.text}"
    if choice and choice.probe.version != then["hypervisor_version"]:
        return f"{choice.name} is {choice.probe.version} now"
    if choice and choice.probe.accelerator != then["accelerator"]:
        return "its hypervisor runs guests in another way now"
    return ""


def _cpu_model() -> str:
    for line in CPUINFO.read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return platform.machine()


def _tsc_mhz() -> float | None:
    """As measured once on this host, unless it is clearly another one by now."""
    measured = host_tsc_khz()
    if measured is None:
        return None
    kept = Setting.objects.filter(pk=TSC_KEPT).values_list("value", flat=True).first()
    if kept is None or abs(kept - measured) > measured * TSC_TOLERANCE:
        Setting.objects.update_or_create(pk=TSC_KEPT, defaults={"value": measured})
        kept = measured
    return float(kept) / 1000

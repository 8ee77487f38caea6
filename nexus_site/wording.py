"""How things are said to people: events, actors, sizes, durations."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from django.utils import timezone

from nexus_site.core.models import Event

MINUTE, HOUR, DAY = 60, 3600, 86400


def actor_name(actor: str) -> str:
    """``user:operator`` → ``operator``; ``token:ci`` → ``token ci``; others as they are."""
    kind, _, name = actor.partition(":")
    if not name:
        return actor
    return name if kind == "user" else f"{kind} {name}"


def size(count: float | None) -> str:
    """Bytes in binary units with three digits: ``512 MiB``, ``1.5 GiB``."""
    if count is None:
        return "–"
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while abs(count) >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    text = f"{count:.0f}" if count >= 100 or units[0] == "B" else f"{count:.1f}"
    return f"{text.removesuffix('.0')} {units[0]}"


def duration(seconds: float | None) -> str:
    """``420 ms``, ``3.2 s``, ``2 min 5 s``, ``3 h 12 min``, ``5 d 2 h``."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return f"{max(seconds, 0) * 1000:.0f} ms"
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    for unit, name, smaller, small_name in (
        (DAY, "d", HOUR, "h"),
        (HOUR, "h", MINUTE, "min"),
        (MINUTE, "min", 1, "s"),
    ):
        if whole >= unit:
            rest = whole % unit // smaller
            return f"{whole // unit} {name}" + (f" {rest} {small_name}" if rest else "")
    return f"{whole} s"


def ago(moment: datetime) -> str:
    """``just now``, ``5 min ago``, ``3 h ago``, ``2 d ago``; the page's clock keeps it true."""
    seconds = int((timezone.now() - moment).total_seconds())
    if seconds < 10:
        return "just now"
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= unit:
            return f"{seconds // unit} {name} ago"
    return f"{seconds} s ago"


def event_text(event: Event) -> str:
    """What happened, in a few words, without naming the subject."""
    data: dict[str, Any] = event.data
    words = _EVENTS.get(event.kind)
    if words is None:
        return event.kind.partition(".")[2].replace("_", " ")
    return words(data) if callable(words) else words


def _moved(data: dict[str, Any]) -> str:
    text = f"{data.get('from') or 'nothing'} → {data.get('to', '?')}"
    return f"{text}: {data['reason']}" if data.get("reason") else text


_SHAPE = {
    "vcpu_count": "{} vCPU",
    "mem_size_mib": "{} MiB",
    "hypervisor": "hypervisor {}",
    "disk_mib_s": "disks {} MiB/s",
    "disk_iops": "disks {} IOPS",
    "network_mib_s": "network {} MiB/s",
    "restart_policy": "restart policy {}",
    "unreachable_action": "unreachable action {}",
    "idle_suspend_minutes": "idle minutes until it suspends itself: {}",
}


def _changed(data: dict[str, Any]) -> str:
    known = [(text, data[name]) for name, text in _SHAPE.items() if name in data]
    words = [text.format("without limit" if value is None else value) for text, value in known]
    return f"was changed: {', '.join(words)}"


def _drive_changed(data: dict[str, Any]) -> str:
    if "delete_with_vm" in data:
        return "goes with its VM now" if data["delete_with_vm"] else "stays when its VM goes now"
    return f"is {data.get('state', 'changed')} now"


def _drive_resized(data: dict[str, Any]) -> str:
    return f"has {size(data.get('size_bytes'))} now; it had {size(data.get('before'))}"


def _storage_changed(data: dict[str, Any]) -> str:
    if "repaired" in data:
        return f"repaired the storage: {data['repaired']} problems"
    return f"made a pool of {size(data.get('size_bytes'))}"


def _vm_snapshot(what: str) -> Callable[[dict[str, Any]], str]:
    return lambda data: f"snapshot {data.get('snapshot_name', '')} {what}"


def _files_changed(data: dict[str, Any]) -> str:
    text = f"{data.get('action', 'changed')} “{data.get('path', '?')}”"
    return f"{text} to “{data['to']}”" if "to" in data else text


def _template_changed(data: dict[str, Any]) -> str:
    return f"has version {data['version']} now" if "version" in data else "was described anew"


def _pool_changed(data: dict[str, Any]) -> str:
    if "size" in data:
        return f"is to have {data['size']} VMs now"
    if "image" in data:
        return f"makes its VMs of {data['image']} now"
    return str(data.get("problem") or "is full")


_EVENTS: dict[str, str | Callable[[dict[str, Any]], str]] = {
    "vm.created": "was created",
    "vm.moved": _moved,
    "vm.renamed": lambda data: f"was renamed; it was “{data.get('before', '?')}”",
    "vm.changed": _changed,
    "vm.boot_ended": lambda data: f"boot {data.get('boot', '?')} ended: {data.get('exit', '?')}",
    "vm.adopted": "was found running and taken over",
    "vm.exec": lambda data: f"ran “{data.get('program', '?')}”",
    "vm.session": lambda data: (
        f"started “{data.get('program', '?')}” as session {data.get('session', '?')}"
    ),
    "vm.files": _files_changed,
    "vm.settled": "its init is through",
    "vm.provisioning": lambda data: f"provisioning: {data.get('phase', '?')}",
    "vm.provisioning_changed": "is given something else at its next start",
    "vm.restart_planned": lambda data: (
        f"will start again in {data.get('seconds', 0):.0f} s, attempt {data.get('attempt', '?')}"
    ),
    "vm.restart_cancelled": "will not start again by itself",
    "vm.clock_corrected": lambda data: f"had its clock set: it was {data.get('drift', '?')}",
    "vm.agent_upgraded": lambda data: f"has agent {data.get('version', '?')} now",
    "vm.snapshot_created": _vm_snapshot("was begun"),
    "vm.snapshot_ready": _vm_snapshot("was taken"),
    "vm.snapshot_renamed": lambda data: (
        f"snapshot {data.get('before', '?')} is called {data.get('snapshot_name', '?')} now"
    ),
    "vm.snapshot_deleted": _vm_snapshot("was deleted"),
    "vm.rolled_back": lambda data: f"was rolled back to {data.get('snapshot_name', '?')}",
    "vm.deleted": "was deleted",
    "vm.memory_dropped": "will boot: the memory it could have gone on from was given up",
    "vm.taken": lambda data: f"was taken from pool {data.get('pool', '?')}",
    "pool.created": lambda data: f"was created for {data.get('size', '?')} VMs",
    "pool.changed": _pool_changed,
    "pool.renamed": lambda data: f"was renamed; it was “{data.get('before', '?')}”",
    "pool.deleted": "was deleted",
    "warm_template.ready": "is there to go on from",
    "warm_template.failed": lambda data: f"is of no use: {data.get('text', '?')}",
    "warm_template.deleted": "was deleted",
    "drive.created": "was created",
    "drive.ready": "is ready",
    "drive.attached": lambda data: f"was attached to {data.get('vm_name', 'a VM')}",
    "drive.detached": lambda data: f"was detached from {data.get('vm_name', 'a VM')}",
    "drive.renamed": lambda data: f"was renamed; it was “{data.get('before', '?')}”",
    "drive.changed": _drive_changed,
    "drive.resized": _drive_resized,
    "drive.restored": lambda data: f"was rolled back to {data.get('snapshot_name', '?')}",
    "drive.deleted": "was deleted",
    "snapshot.created": lambda data: f"was begun, of {data.get('drive_name', 'a drive')}",
    "snapshot.ready": lambda data: f"was taken of {data.get('drive_name', 'a drive')}",
    "snapshot.renamed": lambda data: f"was renamed; it was “{data.get('before', '?')}”",
    "snapshot.resized": _drive_resized,
    "snapshot.changed": _drive_changed,
    "snapshot.deleted": "was deleted",
    "storage.changed": _storage_changed,
    "host.probed": "has looked at this host",
    "image.created": "was created",
    "image.renamed": lambda data: f"was renamed; it was “{data.get('before', '?')}”",
    "image.deleted": "was deleted",
    "rootfs.created": "was fetched",
    "rootfs.verified": "was read again and holds",
    "rootfs.damaged": "is damaged or missing",
    "rootfs.deleted": "was deleted",
    "provider.created": "was created",
    "provider.changed": "was changed",
    "provider.refreshed": lambda data: f"was asked: {data.get('offers', '?')} offers",
    "provider.deleted": "was deleted",
    "kernel.created": "was installed",
    "kernel.default": "is what VMs start with now",
    "kernel.removed": "was removed",
    "kernel.refreshed": lambda data: f"found {data.get('offers', '?')} kernels",
    "kernel.verified": "was read again and holds",
    "kernel.damaged": "is damaged or missing",
    "kernel.tried": lambda data: f"was booted: it is {data.get('state', '')}",
    "release.created": "was fetched",
    "release.default": "is what VMs start with now",
    "release.removed": "was removed",
    "release.refreshed": lambda data: f"found {data.get('offers', '?')} releases of Firecracker",
    "template.created": "was created",
    "template.changed": _template_changed,
    "template.renamed": lambda data: f"was renamed; it was “{data.get('before', '?')}”",
    "template.deleted": "was deleted",
    "build.started": "build started",
    "build.ended": lambda data: f"build {data.get('state', 'ended')}",
    "operation.opened": "was opened",
    "operation.progressed": "went on",
    "operation.ended": lambda data: str(data.get("state", "ended")),
    "operation.cancel_requested": "was asked to stop",
    "token.created": lambda data: f"was created with the scope {data.get('scope', '?')}",
    "token.revoked": "was revoked",
}

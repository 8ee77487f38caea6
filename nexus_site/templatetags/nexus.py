"""Template tags that every page may use (they are built in: no ``{% load %}``)."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any

from django import template
from django.conf import settings
from django.forms import BoundField
from django.urls import reverse
from django.utils import timezone
from django.utils.dateparse import parse_datetime
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe

from builds.models import Build
from drives import verbs as drive_verbs
from drives.models import Drive, Snapshot
from drives.storage import Capacity
from nexus_site import wording
from nexus_site.core.ids import encode
from nexus_site.core.models import Event, Operation
from nexus_site.core.terminal import plain_text
from nexus_site.core.text import visible
from vms import services, verbs
from vms.capacity import HostCapacity
from vms.fork_results import ForkResult, fork_results
from vms.models import VM, VMSnapshot
from vms.services import hotplug_problem
from vms.states import LOOKS, TRANSIENT, State

register = template.Library()

register.filter("size", wording.size)
register.filter("duration", wording.duration)
register.filter("actor", wording.actor_name)
register.filter("event_text", wording.event_text)
register.filter("visible", visible)

# Colours of states that are not a VM's; theirs are in vms.states.
_COLOURS = {
    "good": "green",
    "bad": "red",
    "queued": "secondary",
    "running": "azure",
    "succeeded": "green",
    "ready": "green",
    "failed": "red",
    "cancelled": "secondary",
    "creating": "azure",
    "deleting": "azure",
    "missing": "red",
    "pending": "secondary",
    "done": "green",
    "skipped": "secondary",
    "undone": "orange",
    "fine": "green",
    "limited": "orange",
}
_BUSY = {"running", "creating", "deleting"}

#: Kinds of subject that have a page, and the name of its URL.
_PAGES = {
    "vm": "vms:detail",
    "drive": "drives:detail",
    "snapshot": "drives:snapshot",
    "image": "images:detail",
    "kernel": "images:kernel",
    "rootfs": "images:rootfs-detail",
    "provider": "images:provider",
    "template": "builds:template",
    "build": "builds:detail",
    "kernelbuild": "builds:kernel-build",
    "operation": "operation",
}


@register.simple_tag
def icon(name: str, css: str = "") -> SafeString:
    """The outline icon ``name`` of Tabler Icons as inline SVG, hidden from screen readers."""
    classes = f"icon {css}".strip()
    return format_html('<svg class="{}" {}</svg>', classes, _icon_body(name))


@lru_cache(maxsize=256)
def _icon_body(name: str) -> SafeString:
    directory = settings.ICONS_DIR / "outline"
    attributes = (
        'viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.75" '
        'stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false">'
    )
    # Without the kit (no `npm ci` yet) pages work, they only look plain.
    svg = (directory / f"{name}.svg").read_text() if directory.is_dir() else "<svg></svg>"
    paths = svg.partition(">")[2].rpartition("</svg>")[0]
    return mark_safe(attributes + " ".join(paths.split()))  # noqa: S308  (files of the kit)


@register.simple_tag
def state(value: str, kind: str = "") -> SafeString:
    """A badge with the state of a VM (``kind="vm"``), operation, step, build or drive."""
    if kind == "vm":
        colour, words = LOOKS[State(value)]
        busy = value in TRANSIENT or value == State.RUNNING
    else:
        colour, words, busy = _COLOURS.get(value, "secondary"), "", value in _BUSY
    return format_html(
        '<span class="state state-{}{}"{}><span class="state-dot"></span>{}</span>',
        colour,
        " state-busy" if busy else "",
        format_html(' title="{}"', words) if words else "",
        value,
    )


@register.filter
def state_class(value: str) -> str:
    """The class that gives a dot or an icon the colour of a VM's state."""
    return f"state-{LOOKS[State(value)][0]}"


@register.filter
def state_words(value: str) -> str:
    """What a VM's state means, for people."""
    return LOOKS[State(value)][1]


@register.filter
def moment(value: datetime | str | None) -> datetime | None:
    """A time given as ``datetime`` or as ISO text (as in JSON fields)."""
    return parse_datetime(value) if isinstance(value, str) else value


@register.simple_tag
def ago(value: datetime | str | None, missing: str = "–") -> SafeString | str:
    """How long ago; the page's clock goes on, hovering shows the absolute time."""
    at = moment(value)
    if at is None:
        return missing
    return format_html(
        '<time datetime="{}" title="{}" data-ago>{}</time>', at.isoformat(), at, wording.ago(at)
    )


@register.simple_tag
def lasting(since: datetime | str | None, missing: str = "–") -> SafeString | str:
    """How long something has lasted by now; the page's clock goes on."""
    at = moment(since)
    if at is None:
        return missing
    text = wording.duration((timezone.now() - at).total_seconds() // 1)
    return format_html(
        '<time datetime="{}" title="since {}" data-lasting>{}</time>', at.isoformat(), at, text
    )


@register.simple_tag
def due(at: datetime) -> SafeString:
    """In how long; the page's clock goes on."""
    left = max((at - timezone.now()).total_seconds(), 0)
    return format_html(
        '<time datetime="{}" data-due>in {}</time>', at.isoformat(), wording.duration(left // 1)
    )


@register.inclusion_tag("components/copy.html")
def copy(text: str, label: str = "Copy", shown: str = "") -> dict[str, str]:
    """``text`` in fixed width with a button that copies it."""
    return {"text": str(text), "label": label, "shown": str(shown) or str(text)}


@register.inclusion_tag("components/field.html")
def field(bound: BoundField, prefix: str = "", suffix: str = "") -> dict[str, Any]:
    """A form field with label, help and errors, tied together for screen readers."""
    classes = {"select": "form-select", "checkbox": "form-check-input"}
    widget = bound.field.widget
    kind = getattr(widget, "input_type", "textarea")
    own = f" {widget.attrs['class']}" if "class" in widget.attrs else ""
    css = classes.get(kind, "form-control") + own + (" is-invalid" if bound.errors else "")
    described = [f"{bound.auto_id}-help"] if bound.help_text else []
    described += [f"{bound.auto_id}-error"] if bound.errors else []
    attributes: dict[str, str | bool] = {"class": css}
    if described:
        attributes["aria-describedby"] = " ".join(described)
    if bound.errors:
        attributes["aria-invalid"] = "true"
    return {
        "field": bound,
        "widget": bound.as_widget(attrs=attributes),
        "check": kind == "checkbox",
        "suffix": suffix,
    }


@register.simple_tag
def fetch(url: str, target: str) -> SafeString:
    """The attributes of a link that swaps the element ``target`` and the address."""
    return format_html(
        'href="{0}" hx-get="{0}" hx-target="#{1}" hx-swap="outerMorph" hx-push-url="true"',
        url,
        target,
    )


@register.simple_tag
def subject_url(kind: str, number: int | None) -> str:
    """The page of a subject of events and operations; empty when it has none."""
    name = _PAGES.get(kind)
    return reverse(name, args=[encode(number)]) if name and number else ""


@register.simple_tag
def event_url(event: Event) -> str:
    """The page of an event's subject; empty when it has none or is gone by this event."""
    gone = event.kind.endswith(".deleted")
    return "" if gone else str(subject_url(event.subject_kind, event.subject_id))


@register.filter
def took(build: Build) -> float | None:
    """Seconds from a build's start to its end."""
    return (build.ended_at - build.created_at).total_seconds() if build.ended_at else None


@register.filter
def kind_name(kind: str) -> str:
    """A kind of subject as people write it."""
    names = {"vm": "VM", "vmmrelease": "release", "warmtemplate": "warm template of"}
    return names.get(kind, kind)


@register.filter
def subject_name(event: Event) -> str:
    """The name of an event's subject, an operation's kind, else its ID."""
    if event.subject_kind == "operation" and event.data.get("operation_kind"):
        return str(event.data["operation_kind"])
    return event.subject_name or (encode(event.subject_id) if event.subject_id else "")


@register.filter
def unlocalized(number: int) -> str:
    return str(number)


@register.filter
def memory_use(host: HostCapacity) -> int:
    """The host's memory in use, in percent."""
    return percent(host.memory_mib - host.memory_available_mib, host.memory_mib)


@register.filter
def disk_use(host: HostCapacity) -> int:
    """The data directory's disk in use, in percent."""
    return percent(host.disk_total_bytes - host.disk_free_bytes, host.disk_total_bytes)


@register.filter
def used_bytes(capacity: Capacity) -> int:
    """Bytes in use of the file system that the storage is on."""
    return capacity.total_bytes - capacity.free_bytes


@register.filter
def percent(part: float | None, whole: float | None = 1) -> int:
    """``part`` of ``whole`` in whole percent, 0 to 100."""
    return round(min(max((part or 0) / whole, 0), 1) * 100) if whole else 0


@register.filter
def octal(mode: int) -> str:
    """A file's mode, as people write it: 0644."""
    return f"{mode:04o}"


@register.filter
def mib(count: int) -> str:
    """A number of MiB with its unit: ``512 MiB``, ``2 GiB``."""
    return wording.size(count * 1024**2)


@register.filter
def memory_used(heartbeat: dict[str, Any]) -> int:
    """Bytes of memory that a guest's programs use, from its agent's heartbeat."""
    return int(heartbeat.get("memory_total", 0)) - int(heartbeat.get("memory_available", 0))


@register.filter
def disk_used(disk: dict[str, Any]) -> int:
    """Bytes used of one of the disks of a heartbeat."""
    return int(disk.get("total", 0)) - int(disk.get("free", 0))


@register.filter
def load(averages: list[float]) -> str:
    """Load averages as ``uptime`` prints them."""
    return "  ".join(f"{average:.2f}" for average in averages)


@register.filter
def hypervisor(name: str) -> str:
    return {"qemu": "QEMU", "firecracker": "Firecracker"}.get(name, name)


@register.filter
def flat(counters: dict[str, Any]) -> list[tuple[str, Any]]:
    """Nested counters as a list: ``net.rx_bytes``, 512."""
    found = []
    for name, value in counters.items():
        if isinstance(value, dict):
            found += [(f"{name}.{inner}", counter) for inner, counter in flat(value)]
        else:
            found.append((name, value))
    return found


@register.filter
def evidence(text: str) -> str:
    """What a program wrote, as plain text in which nothing hides."""
    return visible(plain_text(text), keep="\n\t")


@register.filter
def console_lines(lines: list[str]) -> str:
    """Lines of a console as one plain text."""
    return plain_text("\n".join(lines))


@register.simple_tag
def why_not(vm: VM, verb: str) -> str:
    """Why a VM does not take a verb now; empty when it does."""
    return verbs.why_not(vm, verb)


@register.filter
def agent_outdated(vm: VM) -> bool:
    """Whether a VM runs with an agent older than this Nexus's."""
    return services.agent_outdated(vm)


@register.simple_tag
def results_of_forks(operation: Operation, starts: Iterable[Operation]) -> list[ForkResult]:
    """How the forks come out that an operation makes."""
    return fork_results(operation, starts)


@register.filter
def asleep(vm: VM) -> bool:
    """Whether a VM has suspended itself, and wakes for whoever needs it."""
    return services.is_asleep(vm)


@register.simple_tag
def detach_why_not(vm: VM, drive: Drive) -> str:
    """Why ``drive`` cannot be taken out of ``vm`` now; empty when it can."""
    return hotplug_problem(vm, drive)


@register.simple_tag
def drive_why_not(drive: Drive, verb: str) -> str:
    """The same for a drive."""
    return drive_verbs.why_not(drive, verb)


@register.simple_tag
def snapshot_why_not(snapshot: Snapshot, verb: str) -> str:
    """The same for a snapshot of a drive."""
    return drive_verbs.why_not_snapshot(snapshot, verb)


@register.simple_tag
def vm_snapshot_why_not(snapshot: VMSnapshot) -> str:
    """Why a snapshot of a VM cannot be gone back to or cloned now; empty when it can."""
    return verbs.why_not_snapshot(snapshot)


@register.filter
def live_topics(operations: Iterable[Operation]) -> str:
    """The ``data-live`` topics of some operations."""
    return " ".join(f"operation:{operation.ref}" for operation in operations)

"""What the time of a VM's starts went into: bars that are drawn below one another."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.utils.dateparse import parse_datetime

from nexus_site.core.models import Operation
from vms.models import VM, Boot

#: The steps of a start until its VMM runs, and in words.
STEPS = {"storage": "drives", "kernel": "kernel", "launch": "launch"}
HELLO = "hello"
LEAST = 0.5  # percent of the width that something is seen at
STARTS = ("vm.start", "vm.restart", "vm.rollback")
LOOKED_AT = 24  # operations

Span = tuple[str, datetime, datetime]


@dataclass(frozen=True)
class Phase:
    """A part of a bar; ``x`` and ``width`` are of the whole width, as SVG has them."""

    key: str
    words: str
    seconds: float
    x: str
    width: str


@dataclass(frozen=True)
class Bar:
    """One start, from its first step to the agent's hello."""

    boot: Boot
    seconds: float
    phases: list[Phase]


def waterfall(vm: VM, boots: Iterable[Boot]) -> list[Bar]:
    """A bar for each of ``boots`` whose agent has said hello, all on one scale. One query."""
    answered = [boot for boot in boots if boot.launched_at and boot.hello_at]
    if not answered:
        return []
    operations = _starts(vm)
    spans = {boot.pk: _spans(boot, operations) for boot in answered}
    longest = max(_seconds(spans[boot.pk]) for boot in answered)
    return [_bar(boot, spans[boot.pk], longest) for boot in answered]


def _starts(vm: VM) -> list[Operation]:
    rows = Operation.objects.filter(subject_kind="vm", subject_id=vm.pk, kind__in=STARTS)
    return list(rows.order_by("-created_at")[:LOOKED_AT])


def _spans(boot: Boot, operations: Sequence[Operation]) -> list[Span]:
    """What followed what until the hello; only that, for a start whose operation is not known."""
    launched, hello = boot.launched_at, boot.hello_at
    assert launched is not None
    assert hello is not None
    for operation in operations:
        steps = [span for span in map(_span, operation.steps) if span is not None]
        launch = next((span for span in steps if span[0] == "launch"), None)
        if launch is not None and launch[1] <= launched <= launch[2]:
            early = [(name, begun, min(ended, hello)) for name, begun, ended in steps]
            return [*early, (HELLO, early[-1][2], hello)]
    return [(HELLO, launched, hello)]


def _span(step: dict[str, Any]) -> Span | None:
    """When a step of a start was at work, if it was."""
    begun, ended = (parse_datetime(step[at] or "") for at in ("started_at", "ended_at"))
    if step["name"] not in STEPS or begun is None or ended is None:
        return None
    return step["name"], begun, ended


def _bar(boot: Boot, spans: list[Span], longest: float) -> Bar:
    begun, phases = spans[0][1], []
    for name, since, until in spans:
        seconds = max((until - since).total_seconds(), 0)
        x, width = ((since - begun).total_seconds() / longest, seconds / longest)
        width = max(100 * width, LEAST)
        words = STEPS.get(name, name)
        phases.append(Phase(name, words, seconds, f"{100 * x:.2f}%", f"{width:.2f}%"))
    return Bar(boot, _seconds(spans), phases)


def _seconds(spans: list[Span]) -> float:
    return max((spans[-1][2] - spans[0][1]).total_seconds(), 0.001)

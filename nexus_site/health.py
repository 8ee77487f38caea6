"""The health of this host: what every room's probes have found.

What takes long (programs are started, file systems tried) the worker finds when it starts,
after the first VM, after a release of Firecracker has come or gone, every ten minutes and when
asked to, and keeps in a ``Setting``; the rest is found as one looks.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any

from django.utils import timezone
from django.utils.dateparse import parse_datetime

import drives.health
import guest_agent.health
import images.health
import vms.health
from nexus_site.core import events, health
from nexus_site.core.errors import as_nexus_error
from nexus_site.core.health import Finding, State
from nexus_site.core.life import WorkerLife, worker_life
from nexus_site.core.models import Operation, Setting
from nexus_site.core.operations import open_operation, open_operations
from nexus_site.core.steps import Plan, Run, Step
from vms import choice
from vms.models import Boot

KEY = "host.findings"
KIND = "host.probe"
LOOK_EVERY = timedelta(minutes=10)
#: What is asked, in the order in which it is shown; those of the worker start programs.
PROBES: tuple[tuple[str, Callable[[], list[Finding]]], ...] = (
    ("Running VMs", vms.health.findings),
    ("Guest agent", guest_agent.health.findings),
    ("Drives", drives.health.findings),
    ("Images", images.health.findings),
    ("Database", lambda: [health.database_finding(), health.user_finding()]),
)


@dataclass(frozen=True)
class Report:
    """``looked_at``: when the worker looked, None for not yet. ``life``: the worker's."""

    findings: list[Finding]
    looked_at: datetime | None
    life: WorkerLife

    @property
    def state(self) -> State:
        """The worst of all findings."""
        states: tuple[State, ...] = ("missing", "limited")
        return next((state for state in states if self.having(state)), "fine")

    @property
    def missing(self) -> list[Finding]:
        return self.having("missing")

    def having(self, state: State) -> list[Finding]:
        return [finding for finding in self.findings if finding.state == state]


def report() -> Report:
    """What is known now; two queries, and nothing is started."""
    life = worker_life()
    kept = Setting.objects.filter(pk=KEY).first()
    value: dict[str, Any] = kept.value if kept else {"at": "", "findings": []}
    quick = [health.worker_finding(life), health.queue_finding(), health.data_dir_finding()]
    found = [Finding(**finding) for finding in value["findings"]]
    return Report([*quick, *found], parse_datetime(value["at"]), life)


def look() -> list[Finding]:
    """Ask every probe that takes long, and keep the answers. For the worker."""
    found = [finding for title, probe in PROBES for finding in _asked(title, probe)]
    value = {"at": timezone.now().isoformat(), "findings": [asdict(one) for one in found]}
    Setting.objects.update_or_create(pk=KEY, defaults={"value": value})
    return found


def look_when_due() -> None:
    """Look if the last look is old, if what VMs run on has changed (a release of Firecracker has
    come or gone), or if the first VM has tried KVM and the kernel since."""
    kept = Setting.objects.filter(pk=KEY).first()
    at = parse_datetime(kept.value["at"]) if kept else None
    if at is None or timezone.now() - at >= LOOK_EVERY or choice.has_changed():
        look()
        return
    hellos = Boot.objects.filter(hello_at__isnull=False)
    if hellos.exists() and not hellos.filter(hello_at__lte=at).exists():
        look()


def look_again() -> Operation:
    """Have the worker look now; while it is about to, that operation."""
    under_way = open_operations().filter(kind=KIND).first()
    return under_way or open_operation(KIND, "Look at this host")


def plan(operation: Operation) -> Plan:
    return [Step("look", "Ask every probe", _look)]


def _look(run: Run) -> str:
    found = look()
    events.append("host.probed", run.operation, operation_kind=KIND)
    problems = sum(finding.state != "fine" for finding in found)
    return f"{len(found)} answers, {problems} of them not fine"


def _asked(title: str, probe: Callable[[], list[Finding]]) -> list[Finding]:
    """A probe that fails is a finding too, and keeps no other from being asked."""
    try:
        return probe()
    except Exception as failure:
        error = as_nexus_error(failure)
        key = title.lower().replace(" ", "-")
        said = f"The probe failed: {error.text} {error.detail}".strip()
        return [Finding(f"{key}-probe", title, "limited", said, fix=error.hint)]

"""What the worker does from time to time: look at its host, and thin what it has measured."""

from __future__ import annotations

import huey
from huey.contrib import djhuey

from nexus_site import health
from nexus_site.core.operations import register
from vms import metrics_retention


@djhuey.db_task()
def look_at_host() -> None:
    """What a worker does first."""
    health.look()


@djhuey.db_periodic_task(huey.crontab())
def look_at_host_again() -> None:
    """Every minute: whether it is time to."""
    health.look_when_due()


@djhuey.db_periodic_task(huey.crontab(minute="*/5"))
def thin_metrics() -> None:
    """Every five minutes: few samples become old in one."""
    metrics_retention.thin()


register(health.KIND, health.plan)

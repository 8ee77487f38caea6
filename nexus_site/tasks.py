"""What the worker does from time to time: look at its host, thin what it has measured, make and
prune warm templates, look for newer kernels."""

from __future__ import annotations

import huey
from huey.contrib import djhuey

from builds.kernels import news
from nexus_site import health
from nexus_site.core.operations import register
from vms import metrics_retention
from vms.services import warm


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


@djhuey.db_periodic_task(huey.crontab())
def make_next_warm_template() -> None:
    """Every minute: one that is wanted, if the worker has nothing else to do."""
    warm.make_next()


@djhuey.db_periodic_task(huey.crontab(minute="*/5"))
def prune_warm_templates() -> None:
    """Every five minutes: those that no VM can go on from any more, or that are too many."""
    warm.prune_if_needed()


@djhuey.db_periodic_task(huey.crontab(minute="17"))
def look_for_newer_kernels() -> None:
    """Every hour: whether a day has passed, and if so which versions are maintained now."""
    news.look_when_due()


register(health.KIND, health.plan)

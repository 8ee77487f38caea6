"""How the worker comes to look at its host: by operation, and from time to time."""

from __future__ import annotations

import huey
from huey.contrib import djhuey

from nexus_site import health
from nexus_site.core.operations import register


@djhuey.db_task()
def look_at_host() -> None:
    """What a worker does first."""
    health.look()


@djhuey.db_periodic_task(huey.crontab())
def look_at_host_again() -> None:
    """Every minute: whether it is time to."""
    health.look_when_due()


register(health.KIND, health.plan)

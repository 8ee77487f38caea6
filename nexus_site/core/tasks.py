"""What the queue carries: the ID of an operation, nothing else."""

from __future__ import annotations

import huey
from huey.contrib import djhuey

from nexus_site.core import operations
from nexus_site.core.ids import decode


@djhuey.db_task()
def run_operation(operation_id: str) -> None:
    """Claim the operation and run it; a duplicate message finds it claimed and ends."""
    operations.execute(decode(operation_id))


@djhuey.db_periodic_task(huey.crontab(minute="*"))
def sweep() -> None:
    """Pick up what a dead worker or a lost message left behind."""
    operations.sweep()


operations.send_nudges_to(run_operation)

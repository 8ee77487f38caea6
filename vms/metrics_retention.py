"""What is kept of samples: all of the last days, then one each five minutes, then nothing.

Done in small transactions, so that nobody waits long for the database.
"""

from __future__ import annotations

import time
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Min

from nexus_site.core.ids import NexusID
from vms.metrics_slots import FULL, by_slot, samples_of
from vms.models import VM, Sample

SLOT = 300  # seconds that a thinned sample stands for
BATCH = 24 * SLOT  # seconds of one VM in a transaction
MOST_BATCHES = 1000  # in one run; the next one goes on


def thin(now: float | None = None) -> None:
    """Put old samples together, and delete those that are too old."""
    now = time.time() if now is None else now
    full = timedelta(hours=settings.NEXUS.metrics_full_hours).total_seconds()
    kept = timedelta(days=settings.NEXUS.metrics_days).total_seconds()
    full_since = int((now - full) // SLOT * SLOT)  # whole slots only
    left = MOST_BATCHES
    for vm in VM.objects.values_list("pk", flat=True):
        samples_of(vm).filter(at__lt=int(now - kept)).delete()
        while left and _thin_next(vm, full_since):
            left -= 1


@transaction.atomic
def _thin_next(vm: NexusID, before: int) -> bool:
    """Thin the oldest batch of a VM's samples; False when there is none."""
    VM.objects.select_for_update().filter(pk=vm).first()  # one at a time
    rows = Sample.objects.filter(vm=vm, thinned__in=FULL, at__lt=before)
    oldest = rows.aggregate(at=Min("at"))["at"]
    if oldest is None:
        return False
    batch = rows.filter(at__lt=min(before, oldest // SLOT * SLOT + BATCH))
    thinned = [
        Sample(
            vm_id=vm,
            at=slot.until,
            seconds=slot.until - slot.since,
            thinned=True,
            **slot.values,
        )
        for slot in by_slot(batch, SLOT)
    ]
    Sample.objects.bulk_create(thinned)
    batch.delete()
    return True

"""A pool of Nexus's own, for hosts whose file system cannot share blocks."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import transaction

from drives.models import Drive
from drives.services.places import storage
from drives.services.rows import MIB
from drives.services.storage_check import require_storage_idle
from drives.storage import create_pool
from drives.storage.pool import check_pool, pool_path
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


@transaction.atomic
def init_pool(size_mib: int) -> Operation:
    """Make a btrfs in a file of that size, and keep drives in it from now on.

    Raises ``Conflict`` where there is one or where drives are, ``Invalid`` for a size that cannot
    be, ``Denied`` or ``Broken`` where this user or this host cannot; each says what to do.
    """
    require_storage_idle()
    check_pool(_data_dir(), size_mib * MIB)
    if Drive.objects.exists():
        raise Conflict(
            "There are drives already; they would not be in the pool.",
            hint="Export and delete them, and delete warm templates, which have drives too "
            "(nexusctl warm list); make the pool, then import them.",
            code="drives-exist",
        )
    return open_operation(
        "storage.init", "Make a pool for drives", params={"size_bytes": size_mib * MIB}
    )


def init_plan(operation: Operation) -> Plan:
    return [Step("pool", "Make and mount the pool", _make, done=_is_made)]


def _is_made(run: Run) -> str | None:
    """After an interruption: all that was left to do is to say so."""
    made = run.operation.attempt > 1 and pool_path(_data_dir()).exists()
    return "it is there" if made else None


def _make(run: Run) -> str:
    size_bytes = run.params["size_bytes"]
    root = create_pool(_data_dir(), size_bytes)
    with transaction.atomic():
        run.keep(pool=str(root), backend=storage().name)
        events.append("storage.changed", run.operation, pool=str(root), size_bytes=size_bytes)
    return f"{storage().name} in {root}"


def _data_dir() -> Path:
    return Path(settings.NEXUS.data_dir)

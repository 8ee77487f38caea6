"""Small things that all services of drives and snapshots do with their rows."""

from __future__ import annotations

from typing import TypeVar, cast

from django.db import transaction

from drives.models import Drive, Snapshot
from drives.services.places import file_of
from images.files import Progress
from nexus_site.core import events
from nexus_site.core.errors import NotFound
from nexus_site.core.steps import Run

MIB = 1024 * 1024
R = TypeVar("R", bound=Drive | Snapshot)


def locked(row: R) -> R:
    """The row as it is now; nobody else changes it until the transaction ends."""
    rows = type(row)._default_manager.select_for_update()
    found = cast("R | None", rows.filter(pk=row.pk).first())
    if found is None:
        kind = row._meta.model_name
        raise NotFound(f"The {kind} “{row.name}” has been deleted.", code=f"{kind}-not-found")
    return found


@transaction.atomic
def settle(row: Drive | Snapshot) -> None:
    """Ready if its file is there, else missing: for rows whose work ended half-way."""
    row.state = row.State.READY if file_of(row).exists() else row.State.MISSING
    row.save(update_fields=["state"])
    events.append(f"{row._meta.model_name}.changed", row, state=row.state)


def size_text(row: Drive | Snapshot) -> str:
    """Its size for people: ``8 GiB``, ``64 MiB``."""
    mib = row.size_bytes / MIB
    return f"{mib / 1024:.4g} GiB" if mib >= 1024 else f"{mib:.4g} MiB"


def progress_of(run: Run) -> Progress:
    """Passes on how far a copy is; asks on the way whether the operation is to stop."""

    def progress(done: int, total: int) -> None:
        run.progress(done / total if total else None)

    return progress

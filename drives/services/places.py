"""Where drives and snapshots are kept on this host."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path

from django.conf import settings

from drives.models import Drive, Snapshot
from drives.storage import Storage, open_storage
from drives.storage.pool import pool_path
from nexus_site.core.errors import NexusError

log = logging.getLogger(__name__)


def storage() -> Storage:
    """The storage backend of this host, chosen by probing the data directory."""
    data_dir = Path(settings.NEXUS.data_dir)
    return _open(data_dir, pool_path(data_dir).exists())


def sweep_storage() -> list[Path]:
    """Remove what killed processes left half done; returns what it removed.

    A storage that cannot be opened is no reason not to start: each use of it says what is wrong.
    """
    try:
        return storage().sweep()
    except NexusError as error:
        log.warning("the storage was not swept: %s %s", error.text, error.hint)
        return []


def file_of(row: Drive | Snapshot) -> Path:
    """Where the file of a drive or a snapshot is, or would be."""
    if isinstance(row, Drive):
        return storage().drive_path(row.ref)
    return storage().snapshot_path(row.ref)


@lru_cache(maxsize=1)
def _open(data_dir: Path, has_pool: bool) -> Storage:
    """Opened anew once another process has made a pool (``storage init``)."""
    return open_storage(data_dir)

"""Where drives and snapshots are kept on this host."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

from django.conf import settings

from drives.storage import Storage, open_storage


def storage() -> Storage:
    """The storage backend of this host, chosen by probing the data directory."""
    return _open(Path(settings.NEXUS.data_dir))


@lru_cache(maxsize=1)
def _open(data_dir: Path) -> Storage:
    return open_storage(data_dir)

"""What a provider has brought, between the step that fetches it and the one that takes it apart."""

from __future__ import annotations

import contextlib
from dataclasses import asdict
from pathlib import Path
from typing import Any

from images.providers.releases import FetchedRelease
from nexus_site.core.steps import Run


def keep_fetched(run: Run, fetched: FetchedRelease) -> None:
    """Have the next steps, and the next worker, know what is there."""
    run.keep(fetched=asdict(fetched) | {"path": str(fetched.path)}, version=fetched.version)


def fetched_before(run: Run) -> FetchedRelease:
    kept: dict[str, Any] = run.made["fetched"]
    return FetchedRelease(**kept | {"path": Path(kept["path"])})


def drop_archive(run: Run) -> None:
    """Remove what was fetched, unless it is somebody else's; safe to repeat."""
    if "fetched" in run.made and (fetched := fetched_before(run)).ours:
        with contextlib.suppress(FileNotFoundError):
            fetched.path.unlink()

"""The data directory: database, static files, operator and token, made by ``nexus_setup``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from front_door.paths import PYTHON, ROOT, Stamp
from front_door.server import Server
from front_door.steps import Step

MADE = ("nexus.db", "token", "static/staticfiles.json")


def ensure_data_directory(step: Step, server: Server) -> None:
    """Run ``manage.py nexus_setup`` unless it ran here on this very code and these settings."""
    stamp = Stamp(server.data_dir / "run/setup.stamp", *_sources(), _settings())
    elsewhere = "DATABASE_URL" in os.environ  # a database that we cannot see from here
    step.note = str(server.data_dir)
    if stamp.fresh() and not elsewhere and all((server.data_dir / name).exists() for name in MADE):
        return
    step.doing(f"setting up {server.data_dir}")
    step.run([PYTHON, "manage.py", "nexus_setup"], server.environment())
    stamp.write()


def _sources() -> Iterator[Path | str]:
    """What decides the outcome: the locks, all migrations, and the site with its assets."""
    yield ROOT / "requirements/run.txt"
    yield ROOT / "package-lock.json"
    files = [*ROOT.glob("*/migrations/*.py"), *(ROOT / "nexus_site").rglob("*")]
    for path in sorted(files):
        if path.is_file() and path.suffix != ".pyc":
            yield str(path.relative_to(ROOT))
            yield path


def _settings() -> str:
    """The environment's settings that may change it."""
    names = [name for name in os.environ if name.startswith(("NEXUS_", "REDIS_"))]
    return "\n".join(f"{name}={os.environ[name]}" for name in sorted(names))

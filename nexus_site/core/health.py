"""What a probe of this host has found, and the probes of what every room stands on.

Each room has its own in ``<room>/health.py``; ``nexus_site.health`` brings them together.
"""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from django.conf import settings
from django.db import connection, models
from django.utils import timezone

from nexus_site.core.life import WorkerLife, worker_life
from nexus_site.core.models import Operation

State = Literal["fine", "limited", "missing"]

LOW = 0.1  # of a disk: less than this free is little
WAITS_LONG = 60.0  # seconds that an operation may be queued before somebody should look
_GIB = 1 << 30


@dataclass(frozen=True)
class Finding:
    """What one probe found. ``limited``: Nexus works, with less; ``missing``: something does not.

    ``meaning`` says what that is to people, ``fix`` what to do, ``command`` what to type.
    """

    key: str
    title: str
    state: State
    found: str
    meaning: str = ""
    fix: str = ""
    command: str = ""


def worker_finding(life: WorkerLife | None = None) -> Finding:
    """Whether the worker runs."""
    life = life or worker_life()
    if life.alive:
        return Finding("worker", "Worker", "fine", f"Runs (pid {life.pid}) since {_at(life.since)}")
    log = shlex.quote(str(settings.NEXUS.run_dir / "nexusd.log"))
    return Finding(
        "worker",
        "Worker",
        "missing",
        f"Down since {_at(life.since)}" if life.since else "Has never run",
        "Nothing is started, stopped or made until it is back; VMs that run go on.",
        "nexusd starts it again by itself, after 30 s at most. Its log says why it ended.",
        f"tail -n 50 {log}",
    )


def queue_finding() -> Finding:
    """How much waits for the worker, and for how long."""
    queued = Operation.objects.filter(
        parent=None, state=Operation.State.QUEUED, not_before__lte=timezone.now()
    ).aggregate(count=models.Count("pk"), oldest=models.Min("created_at"))
    count, oldest = queued["count"], queued["oldest"]
    if not count:
        return Finding("queue", "Queue", "fine", "Nothing waits")
    waits = (timezone.now() - oldest).total_seconds()
    found = f"{count} waiting, the oldest for {waits:.0f} s"
    if waits < WAITS_LONG:
        return Finding("queue", "Queue", "fine", found)
    return Finding(
        "queue",
        "Queue",
        "limited",
        found,
        f"All {settings.NEXUS.workers} job threads are busy, or the worker is down.",
        "See what runs. NEXUS_WORKERS sets the number of job threads.",
        "nexusctl operation list",
    )


def database_finding() -> Finding:
    """Which database, how it is written, how large it is."""
    if connection.vendor != "sqlite":
        return Finding("database", "Database", "fine", connection.display_name)
    with connection.cursor() as cursor:
        cursor.execute("PRAGMA journal_mode")
        mode = str(cursor.fetchone()[0])
    path = Path(str(connection.settings_dict["NAME"]))
    found = f"SQLite, journal {mode.upper()}, {_mib(_size(path))} MiB"
    if mode.lower() == "wal":
        return Finding("database", "Database", "fine", found)
    return Finding(
        "database",
        "Database",
        "limited",
        found,
        "Pages wait while the worker writes.",
        "Keep the data directory on a local file system: WAL does not work on network ones.",
    )


def data_dir_finding() -> Finding:
    """Whether Nexus can write what it keeps, and how much room there is."""
    directory = Path(settings.NEXUS.data_dir)
    quoted = shlex.quote(str(directory))
    if not os.access(directory, os.W_OK | os.X_OK):
        return Finding(
            "data-dir",
            "Data directory",
            "missing",
            f"{directory} is not writable",
            "Nothing can be made or changed.",
            "Give it to the user that Nexus runs as.",
            f"sudo chown -R {os.geteuid()}:{os.getegid()} {quoted}",
        )
    disk = shutil.disk_usage(directory)
    found = f"{directory}, {disk.free / _GIB:.1f} of {disk.total / _GIB:.1f} GiB free"
    if disk.free >= disk.total * LOW:
        return Finding("data-dir", "Data directory", "fine", found)
    return Finding(
        "data-dir",
        "Data directory",
        "limited",
        found,
        "Drives share this room: guests that write into a full disk see errors.",
        "Delete images, drives and snapshots that nobody needs; see what takes most.",
        f"du -xh --max-depth=2 {quoted} | sort -h | tail",
    )


def user_finding() -> Finding:
    """Whom Nexus runs as. Both ways are fine; they differ in what Nexus can do by itself."""
    if os.geteuid() == 0:
        meaning = "Nexus can make and mount a pool for drives."
        return Finding("user", "User", "fine", "root", meaning)
    return Finding(
        "user",
        "User",
        "fine",
        f"{_user_name()}, not root",
        "VMs run without privileges. A pool for drives is made and mounted by you: "
        "`nexusctl storage init` prints the command.",
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:  # usual in a container
        return f"user {os.geteuid()}"


def _at(moment: datetime | None) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC" if moment else "–"


def _size(path: Path) -> int:
    files = (path, path.with_name(path.name + "-wal"))
    return sum(file.stat().st_size for file in files if file.exists())


def _mib(count: int) -> str:
    return f"{count / (1 << 20):.1f}"

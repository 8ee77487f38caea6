"""Whether the worker lives: what it writes about itself, and what others read in it.

``run/worker.json`` names the worker's process (pid and start time, never pid alone) and says
when it was last seen. It stays when the worker ends: that is how one knows since when.
"""

from __future__ import annotations

import json
import os
import threading
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
from django.conf import settings
from django.utils import timezone

BEAT_EVERY = 5.0  # seconds
SILENT_AFTER = timedelta(seconds=30)  # a process that is there but says nothing counts as down


@dataclass(frozen=True)
class WorkerLife:
    """``since``: alive, when it started; else when it was last seen, None for never."""

    alive: bool
    pid: int | None = None
    since: datetime | None = None


def worker_life() -> WorkerLife:
    """The worker of this host as it is now; costs one small file."""
    try:
        record = json.loads(_path().read_text())
        pid, started = int(record["pid"]), float(record["started"])
        seen = datetime.fromtimestamp(record["seen"], UTC)
    except (OSError, ValueError, KeyError, TypeError):
        return WorkerLife(alive=False)
    if timezone.now() - seen < SILENT_AFTER and lives(pid, started):
        return WorkerLife(True, pid, datetime.fromtimestamp(started, UTC))
    return WorkerLife(False, None, seen)


class Heartbeat:
    """Keeps the record true while this process is the worker; a thread of its own."""

    def __init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="worker-heartbeat", daemon=True)

    def start(self) -> None:
        write_beat()
        self._thread.start()

    def stop(self) -> None:
        """Leave the time of the end behind."""
        self._over.set()
        self._thread.join()
        write_beat()

    def _beat(self) -> None:
        while not self._over.wait(BEAT_EVERY):
            write_beat()


def write_beat() -> None:
    """Say that this process is the worker, and that it lives now."""
    record = {
        "pid": os.getpid(),
        "started": psutil.Process().create_time(),
        "seen": timezone.now().timestamp(),
    }
    temporary = _path().with_suffix(".json.tmp")
    temporary.write_text(json.dumps(record))
    temporary.replace(_path())  # not fsynced: after a power cut no worker runs anyway


class WorkerPulse:
    """Says once that the worker has come or gone since it was asked last (``consumers.pulses``)."""

    def __init__(self) -> None:
        self._before = worker_life()

    def __call__(self) -> list[str]:
        before, self._before = self._before, worker_life()
        known = (before.alive, before.pid) == (self._before.alive, self._before.pid)
        return [] if known else ["worker:here"]


def lives(pid: int, started: float) -> bool:
    """Whether the process runs that began then; one that waits to be reaped has ended."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - started) < 0.1
        return same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


def _path() -> Path:
    return Path(settings.NEXUS.run_dir) / "worker.json"

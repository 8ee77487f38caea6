"""The VMM's own counters."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from nexus_site.core.errors import Conflict, Retryable
from vms.hypervisors import monitored

LOG = "metrics.log"
FLUSH_SECONDS = 2.0
LAST_BYTES = 64 * 1024


def read(vm_dir: Path, flush: Callable[[], object]) -> dict[str, Any]:
    """The counters of the last line of the VMM's metrics, once `flush` made it write one."""
    log = vm_dir / LOG
    before = _size(log)
    try:
        flush()
    except (Conflict, Retryable):
        return _last(vm_dir)  # it has ended, or hangs
    deadline = time.monotonic() + FLUSH_SECONDS
    while _size(log) == before and time.monotonic() < deadline:
        time.sleep(monitored.POLL_SECONDS)
    return _last(vm_dir)


def _last(vm_dir: Path) -> dict[str, Any]:
    older, newer = vm_dir / f"{LOG}.1", vm_dir / LOG
    lines = (_tail(older, LAST_BYTES) + _tail(newer, LAST_BYTES)).split(b"\n")
    for line in reversed(lines):
        try:
            counters = json.loads(line)
        except (ValueError, RecursionError):
            continue  # not whole, or not what the VMM should write
        if isinstance(counters, dict):
            return counters
    return {}


def _tail(log: Path, size: int) -> bytes:
    """The last bytes of a log; nothing when there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, 2) - size))
            return file.read(size)
    except FileNotFoundError:
        return b""


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return -1

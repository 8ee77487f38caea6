"""The VMM's own counters.

With every flush Firecracker writes what it has counted since the last one. The sums are kept
beside the log, with how far they go, and begin anew with every launch.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from nexus_site.core.errors import Conflict, Retryable
from vms.hypervisors import monitored
from vms.hypervisors.records import write_json

LOG = "metrics.log"
FLUSH_SECONDS = 5.0
TOLD_AT = "utc_timestamp_ms"  # in each line, by the host's clock
MOST = 64 * 1024  # bytes of all counters
Counters = dict[str, Any]


def read(vm_dir: Path, flush: Callable[[], object]) -> Counters:
    """What the VMM has counted since its launch, once `flush` made it write the newest counts.

    It also writes once a minute of itself, and a line may come in parts: what is waited for is
    a whole line that is no older than the call.
    """
    asked = time.time_ns() // 10**6
    deadline = time.monotonic()
    with suppress(Conflict, Retryable):  # it has ended, or hangs
        flush()
        deadline += FLUSH_SECONDS
    while True:
        counters = _sum_up(vm_dir)
        told = counters.get(TOLD_AT)
        if (isinstance(told, int) and told >= asked) or time.monotonic() >= deadline:
            return counters
        time.sleep(monitored.POLL_SECONDS)


def _sum_up(vm_dir: Path) -> Counters:
    counters, position = _known(vm_dir)
    text, start = _lines_from(vm_dir, position)
    whole = text.rfind(b"\n") + 1
    for line in text[:whole].splitlines():
        with suppress(ValueError, RecursionError):  # not what the VMM should write
            counts = json.loads(line)
            if isinstance(counts, dict):
                counters = _added(counters, counts)
    if len(json.dumps(counters)) > MOST:
        counters = {}  # no VMM has so many, unless its guest has taken it over
    record = {"position": start + whole, "counters": counters}
    write_json(vm_dir / monitored.METRICS, record)
    return counters


def _known(vm_dir: Path) -> tuple[Counters, int]:
    """The sums so far, and the position in the log up to which they go."""
    try:
        record = json.loads((vm_dir / monitored.METRICS).read_bytes())
        return record["counters"], record["position"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}, _dropped(vm_dir) + max(0, _size(vm_dir / f"{LOG}.1"))  # a launch begins a file


def _lines_from(vm_dir: Path, position: int) -> tuple[bytes, int]:
    """What the log holds from ``position`` on, and where that begins: there, or after it."""
    first = _dropped(vm_dir)
    text = _content(vm_dir / f"{LOG}.1") + _content(vm_dir / LOG)
    skip = min(max(position - first, 0), len(text))
    return text[skip:], first + skip


def _added(counters: Counters, counts: Counters) -> Counters:
    """Counts on top of counters; what is a time or no number is as it was last."""
    sums = dict(counters)
    for name, value in counts.items():
        before = counters.get(name)
        if isinstance(value, dict):
            sums[name] = _added(before if isinstance(before, dict) else {}, value)
        elif name.endswith(("_us", "_ms")):
            sums[name] = value or before or 0  # a time, told once
        elif type(value) is int and type(before) is int:
            sums[name] = before + value
        else:
            sums[name] = value
    return sums


def _content(log: Path) -> bytes:
    try:
        return log.read_bytes()
    except FileNotFoundError:
        return b""


def _dropped(vm_dir: Path) -> int:
    try:
        return int((vm_dir / f"{LOG}.dropped").read_text())
    except (OSError, ValueError):
        return 0


def _size(log: Path) -> int:
    try:
        return log.stat().st_size
    except FileNotFoundError:
        return -1

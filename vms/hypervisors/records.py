"""What drivers write down about VMMs: JSON files that are whole or not there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vms.hypervisors import monitor


def read_json(path: Path) -> dict[str, Any]:
    """The record; ``FileNotFoundError``, ``json.JSONDecodeError``."""
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_json(path: Path, record: dict[str, Any]) -> None:
    """Write it whole or not at all, and to the disk."""
    monitor.write_whole(str(path), json.dumps(record))

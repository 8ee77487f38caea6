"""A Firecracker release that is installed on this host."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FirecrackerBinary:
    """The program, the jailer of the same release where it came with one, and their version."""

    path: Path
    jailer: Path | None
    version: str

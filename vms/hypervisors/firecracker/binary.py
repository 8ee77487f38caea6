"""A Firecracker release that is installed on this host."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class FirecrackerBinary:
    """The program, the jailer of the same release where it came with one, and their version."""

    path: Path
    jailer: Path | None
    version: str

    @property
    def release(self) -> tuple[int, ...]:
        """The version to compare: (1, 12, 1) for "v1.12.1-dev"; empty for one without numbers."""
        numbers = re.match(r"v?(\d+(?:\.\d+)*)", self.version)
        return tuple(map(int, numbers[1].split("."))) if numbers else ()

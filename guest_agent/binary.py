"""The compiled agent that goes into images and initrds."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from functools import cache
from pathlib import Path

from guest_agent.build import DIST, GO_ARCHES, SOURCE
from nexus_site.core.errors import Broken


def agent_path(arch: str = "x86_64") -> Path:
    """The static binary for ``arch``; ``Broken`` where it was not built."""
    path = DIST / f"nexus-agent-{arch}"
    if arch not in GO_ARCHES or not path.is_file():
        raise Broken(
            f"The guest agent for {arch} has not been built.",
            hint="Run `./nexus up`.",
            code="no-agent-binary",
        )
    return path


def agent_digest(arch: str = "x86_64") -> str:
    """The SHA-256 of the binary, in hex: what images are made with."""
    path = agent_path(arch)
    return _digest(path, path.stat().st_mtime_ns)


@cache
def _digest(path: Path, _changed: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def agent_version() -> str:
    """The version that the agent tells in its hello."""
    return (SOURCE / "VERSION").read_text().strip()


@cache
def host_tsc_khz() -> int | None:
    """The frequency of this host's time stamp counter; None where it has none.

    Takes a quarter of a second, once. Emulated guests on QEMU's ``microvm`` need it on their
    kernel's command line (``tsc_early_khz=``): they see the host's counter, and calibrating it
    themselves fails on a busy host. ``Broken`` where the agent was not built.
    """
    arch = platform.machine()
    if arch != "x86_64":
        return None
    measured = subprocess.run(
        [agent_path(arch), "tsc"], capture_output=True, text=True, timeout=30, check=False
    )
    return int(measured.stdout) if measured.returncode == 0 else None

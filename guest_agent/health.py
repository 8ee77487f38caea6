"""What agents need on this host."""

from __future__ import annotations

import platform
import subprocess

from guest_agent.binary import agent_path, agent_version, host_tsc_khz
from nexus_site.core.errors import Broken
from nexus_site.core.health import Finding


def findings() -> list[Finding]:
    """The agent's binary, and the clock that it measures. Slow once (a quarter of a second)."""
    arch = platform.machine()
    try:
        size = agent_path(arch).stat().st_size
    except Broken as error:
        found = Finding(
            "agent",
            "Guest agent",
            "missing",
            error.text,
            "No VM can be started: it boots with the agent.",
            "Nexus builds it when it is set up.",
            "./nexus up",
        )
        return [found]
    text = f"{agent_version()} for {arch}, {size / (1 << 20):.1f} MiB"
    return [Finding("agent", "Guest agent", "fine", text), *_clock(arch)]


def _clock(arch: str) -> list[Finding]:
    if arch != "x86_64":
        return []
    try:
        khz = host_tsc_khz()
    except (OSError, subprocess.TimeoutExpired):
        khz = None
    if khz is not None:
        return [Finding("clock", "Clock", "fine", f"Time stamp counter at {khz / 1e6:.3f} GHz")]
    return [
        Finding(
            "clock",
            "Clock",
            "limited",
            "The frequency of the time stamp counter is unknown",
            "VMs in emulation could not tell the time and are not started; with KVM they are.",
            "Use a machine whose CPU has an invariant TSC, or one where KVM works.",
        )
    ]

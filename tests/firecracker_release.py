"""The real Firecracker for tests: the one that runs guests here, or the package's own."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from images.providers.releases.wheel import WheelProvider
from nexus_site.core.errors import Retryable
from tests.rig import host
from vms.hypervisors.firecracker import Firecracker, FirecrackerBinary

IN_THE_RIG = "NEXUS_TEST_RIG" in os.environ
#: What guests need there; see tests/rig/level1/init.
GUEST_ARGUMENTS = tuple(os.environ.get("NEXUS_GUEST_KERNEL_ARGS", "").split())
TRIAL_SECONDS = 180.0 if IN_THE_RIG else 5.0


def installed() -> FirecrackerBinary | None:
    """The Firecracker of a host whose KVM runs guests, with its jailer; None elsewhere."""
    programs = host.firecracker()
    if programs is None:
        return None
    path = programs / "firecracker"
    said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    version = said.stdout.split()[1].removeprefix("v")
    return FirecrackerBinary(path, programs / "jailer", version)


def of_the_package(directory: Path) -> FirecrackerBinary:
    """That of the locked package, in `directory`; skips the test where pip cannot fetch it."""
    provider = WheelProvider()
    offer = provider.find("", "x86_64", "")
    try:
        provider.unpack(provider.fetch(offer, "", directory), directory)
    except Retryable as error:
        pytest.skip(f"{error.text} {error.detail}")
    return FirecrackerBinary(directory / "firecracker", directory / "jailer", offer.version)


def drivers(cache: Path, kernel: Path, *, jailed: bool | None = None) -> Callable[[], Firecracker]:
    """Makes drivers that run guests; skips the test where there is no Firecracker or real KVM."""
    binary = installed()
    if binary is None:
        pytest.skip("there is no Firecracker here; the rig has one")

    def make() -> Firecracker:
        return Firecracker(
            cache,
            lambda: binary,
            jailed=jailed,
            kernel=kernel,
            trial_seconds=TRIAL_SECONDS,
            trial_arguments=GUEST_ARGUMENTS,
        )

    if not make().probe().usable:
        pytest.skip("KVM runs no guests here; in the rig it does")
    return make

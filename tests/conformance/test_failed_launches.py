"""Starts that fail, on the real VMMs: whatever the reason, nothing is left but logs."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from nexus_site.core.errors import Broken, Invalid
from vms.hypervisors import monitor, monitored
from vms.hypervisors.base import Disk, Handle
from vms.hypervisors.firecracker import driver as firecracker_driver
from vms.hypervisors.qemu import driver as qemu_driver
from vms.hypervisors.qemu import qmp

if TYPE_CHECKING:
    from tests.conformance.conftest import Boot, NewSpec, Remains

pytestmark = pytest.mark.live

Prepare = Callable[[Path], dict[str, Any]]


def no_kernel(directory: Path) -> dict[str, Any]:
    return {"kernel": directory / "none", "bzimage": directory / "none"}


def bad_kernel(directory: Path) -> dict[str, Any]:
    path = directory / "kernel"
    path.write_bytes(b"this is no kernel" * 1000)
    return {"kernel": path, "bzimage": path}


def no_disk(directory: Path) -> dict[str, Any]:
    return {"disks": (Disk("root", directory / "none"),)}


def too_many_disks(directory: Path) -> dict[str, Any]:
    disk = directory / "disk"
    disk.write_bytes(bytes(2**20))
    return {"disks": tuple(Disk(f"data{n}", disk, read_only=True) for n in range(40))}


@pytest.mark.parametrize("prepare", [no_kernel, bad_kernel, no_disk, too_many_disks])
def test_a_spec_that_cannot_run_leaves_nothing(
    boot: Boot, prepare: Prepare, tmp_path: Path, new_spec: NewSpec, remains: Remains
) -> None:
    """A driver sees that it is Invalid, or else its VMM says why it fails."""
    spec = new_spec(**prepare(tmp_path))
    with pytest.raises((Invalid, Broken)) as caught:
        boot(spec=spec)
    assert isinstance(caught.value, Invalid) or caught.value.code == "launch-failed"
    assert isinstance(caught.value, Invalid) or "exited with code 1" in caught.value.text
    assert caught.value.detail or caught.value.code == "too-many-disks"
    assert remains(spec) == []


def die(handle: Handle) -> None:
    monitored.kill(handle)


def hang(handle: Handle) -> None:
    os.kill(handle.pid, signal.SIGSTOP)


@pytest.mark.parametrize(("fault", "said"), [(die, "killed by signal 9"), (hang, "within 1 s")])
def test_a_vmm_that_fails_while_it_starts_leaves_nothing(
    boot: Boot,
    fault: Callable[[Handle], None],
    said: str,
    new_spec: NewSpec,
    remains: Remains,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    start = monitored.start

    def start_badly(*arguments: Any) -> Handle:
        handle = start(*arguments)
        fault(handle)
        return handle

    monkeypatch.setattr(monitored, "start", start_badly)
    for driver in (qemu_driver, firecracker_driver):
        monkeypatch.setattr(driver, "START_SECONDS", 1)
    monkeypatch.setattr(qmp, "GREETING_SECONDS", 1)
    spec = new_spec()
    with pytest.raises(Broken, match=said) as caught:
        boot(spec=spec)
    assert caught.value.code == "launch-failed"
    assert remains(spec) == []


def test_a_monitor_that_does_not_start_leaves_nothing(
    boot: Boot, new_spec: NewSpec, remains: Remains, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(monitor, "__file__", "/no/such/monitor.py")
    spec = new_spec()
    with pytest.raises(Broken, match="could not be started"):
        boot(spec=spec)
    assert remains(spec) == []

"""What the probes of this room make of hosts of several kinds."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_site.core.errors import Broken
from nexus_site.core.health import Finding
from vms import health


def _finding(key: str) -> Finding:
    return next(finding for finding in health.findings() if finding.key == key)


@pytest.fixture
def no_qemu(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise Broken("QEMU is not installed.", hint="apt-get install -y qemu-system-x86")

    monkeypatch.setattr(health, "find_qemu", missing)


@pytest.mark.usefixtures("no_qemu")
def test_without_qemu_something_is_missing_and_kvm_is_not_spoken_of() -> None:
    qemu = _finding("qemu")
    assert (qemu.state, qemu.command) == ("missing", "apt-get install -y qemu-system-x86")
    assert "kvm" not in [finding.key for finding in health.findings()]


@pytest.mark.usefixtures("no_qemu")
def test_vsock_is_fine_where_it_opens(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    device = tmp_path / "vhost-vsock"
    monkeypatch.setattr(health, "VSOCK", device)
    assert _finding("vsock").command == "sudo modprobe vhost_vsock"
    device.mkdir()  # what cannot be opened for writing, even by root
    assert "does not open" in _finding("vsock").found
    device.rmdir()
    device.touch()
    assert _finding("vsock").state == "fine"


@pytest.mark.usefixtures("no_qemu")
def test_control_groups_are_fine_where_they_are_delegated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(health, "CGROUPS", tmp_path)
    assert "of version 2 alone" in _finding("cgroups").found
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    own, group = tmp_path / "own", tmp_path / "user.slice"
    own.write_text("0::/user.slice\n")
    monkeypatch.setattr(health, "OWN_CGROUP", own)
    group.mkdir()
    (group / "cgroup.controllers").write_text("memory pids\n")
    lacking = _finding("cgroups")
    assert (lacking.state, lacking.found) == ("limited", "Version 2, without cpu")
    assert "Delegate=cpu memory pids" in lacking.command
    (group / "cgroup.controllers").write_text("cpu memory pids\n")
    assert _finding("cgroups").state == "fine"

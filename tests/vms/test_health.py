"""What the probes of this room make of hosts of several kinds."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nexus_site.core.errors import Broken
from nexus_site.core.health import Finding
from vms import choice, health
from vms.hypervisors import kvm
from vms.hypervisors.base import Probe, Problem
from vms.hypervisors.firecracker import FirecrackerBinary
from vms.hypervisors.qemu.binary import QemuBinary

pytestmark = pytest.mark.django_db

RELEASE = FirecrackerBinary(Path("/fc/firecracker"), Path("/fc/jailer"), "1.12.1")
FIRECRACKER = Probe("firecracker", True, "kvm", "1.12.1")
NOT_INSTALLED = Probe(
    "firecracker", False, "", "", (Problem("No release is installed.", "Get one.", "fetch"),)
)
NOT_ROOT = Problem("Nexus does not run as root.", "Run Nexus as root.")
SLOW = Problem("KVM is there but no guest runs with it.", "Update the kernel.")
QEMU_KVM = Probe("qemu", True, "kvm", "7.2")
QEMU_TCG = Probe("qemu", True, "tcg", "7.2", (SLOW,))
NO_QEMU = Probe("qemu", False, "", "", (Problem("QEMU is not installed.", "apt-get install"),))


class Host:
    """A host with what tests put there: at first Firecracker and QEMU that work, as root."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.probes = {"firecracker": FIRECRACKER, "qemu": QEMU_KVM}
        self.release: FirecrackerBinary | None = RELEASE
        self.jail: Problem | None = None
        self.network: Problem | None = None
        self.warnings: tuple[Problem, ...] = ()
        self.qemu: QemuBinary | None = QemuBinary(
            Path("/usr/bin/qemu"), "7.2", "microvm", "q", True
        )
        monkeypatch.setattr(choice, "driver_for", lambda name, kernel: self._driver(name))
        monkeypatch.setattr(choice, "_host", lambda: {"release": "1.12.1", "kernel": True})
        monkeypatch.setattr(health, "installed_firecracker", lambda: self.release)
        monkeypatch.setattr(health, "jail_problem", lambda release, directory: self.jail)
        monkeypatch.setattr(health, "network_problem", lambda pool: self.network)
        monkeypatch.setattr(health, "network_warnings", lambda resolver: self.warnings)
        monkeypatch.setattr(health, "find_qemu", self._find_qemu)

    def _driver(self, name: str) -> Any:
        return type("Driver", (), {"probe": lambda _: self.probes[name]})()

    def _find_qemu(self) -> QemuBinary:
        if self.qemu is None:
            raise Broken("QEMU is not installed.", hint="apt-get install -y qemu-system-x86")
        return self.qemu

    def has(self, *probes: Probe) -> None:
        self.probes |= {probe.name: probe for probe in probes}


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Host:
    return Host(monkeypatch)


def _finding(key: str) -> Finding:
    return next(finding for finding in health.findings() if finding.key == key)


def test_where_all_is_there_all_is_fine(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_cgroups", lambda: Finding("cgroups", "", "fine", "there"))
    found = {finding.key: finding for finding in health.findings()}
    assert {finding.state for finding in found.values()} == {"fine"}
    assert (
        found["hypervisor"].found
        == "VMs run on Firecracker 1.12.1 with KVM: the best that works here"
    )
    assert found["firecracker"].found == "1.12.1, a guest ran with it"
    assert "by Firecracker and QEMU" in found["kvm"].found
    assert found["jailer"].found.startswith("On: ")
    assert "10.213.0.0/16" in found["network"].found


def test_vsock_needs_nothing_of_the_host(host: Host) -> None:
    vsock = _finding("vsock")
    assert (vsock.state, vsock.command) == ("fine", "")


def test_without_firecracker_it_is_said_how_to_get_it_where_kvm_works(host: Host) -> None:
    host.release = None
    host.has(NOT_INSTALLED)
    found = _finding("firecracker")
    assert (found.state, found.found) == ("limited", "No release is installed.")
    assert (found.fix, found.command) == ("Get one.", "fetch")
    assert "VMs run on QEMU" in found.meaning
    assert "VMs run on QEMU 7.2 with KVM: Firecracker is not usable" in _finding("hypervisor").found
    for key in ("jailer", "network"):
        assert (_finding(key).state, _finding(key).found) == ("fine", health.NO_RELEASE)


def test_where_kvm_does_not_work_firecracker_is_not_missed(host: Host) -> None:
    host.release = None
    host.has(NOT_INSTALLED, QEMU_TCG)
    assert _finding("firecracker").state == "fine"
    found = _finding("kvm")
    assert (found.state, found.meaning, found.fix) == ("limited", SLOW.text, SLOW.fix)


def test_one_driver_that_ran_a_guest_with_kvm_is_enough(host: Host) -> None:
    host.has(QEMU_TCG)
    assert _finding("kvm").found.endswith("a guest ran with it, by Firecracker")


def test_without_a_device_the_way_to_get_one_comes_first(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(kvm, "KVM", tmp_path / "kvm")
    host.has(replace(QEMU_TCG, problems=()), NOT_INSTALLED)
    found = _finding("kvm")
    assert found.found == f"There is no {tmp_path}/kvm"
    assert "modprobe" in found.command


def test_firecracker_that_does_not_run_says_why(host: Host) -> None:
    host.has(replace(FIRECRACKER, usable=False, accelerator="", problems=(SLOW,)))
    found = _finding("firecracker")
    assert (found.state, found.found) == ("limited", f"1.12.1: {SLOW.text}")
    assert found.meaning.startswith("VMs run on QEMU.")


def test_not_as_root_the_jailer_is_off_and_there_is_no_network(host: Host) -> None:
    host.jail = NOT_ROOT
    host.has(replace(FIRECRACKER, problems=(NOT_ROOT,)))
    jailer, network = _finding("jailer"), _finding("network")
    assert (jailer.state, jailer.found) == ("limited", f"Off: {NOT_ROOT.text}")
    assert (network.state, network.fix) == ("limited", "Run Nexus as root.")
    assert "have no network" in network.meaning
    assert "VMs that wish for it run with less" in _finding("firecracker").meaning


def test_the_network_says_what_it_lacks_and_what_will_not_work(host: Host) -> None:
    host.warnings = (Problem("VMs have no DNS.", "Name a server."),)
    assert (_finding("network").state, _finding("network").found) == ("limited", "VMs have no DNS.")
    host.network = Problem("nftables is missing.", "Install it.", "apt install nftables")
    assert _finding("network").command == "apt install nftables"


def test_without_qemu_what_that_means_depends_on_firecracker(host: Host) -> None:
    host.qemu = None
    host.has(NO_QEMU)
    qemu = _finding("qemu")
    assert (qemu.state, qemu.command) == ("limited", "apt-get install -y qemu-system-x86")
    host.has(NOT_INSTALLED)
    assert _finding("qemu").state == "missing"
    none = _finding("hypervisor")
    assert (none.state, none.meaning) == ("missing", "No VM can run.")


def test_control_groups_are_for_root_with_all_controllers(
    host: Host, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(health, "CGROUPS", tmp_path)
    assert "of version 2 alone" in _finding("cgroups").found
    controllers = tmp_path / "cgroup.controllers"
    controllers.write_text("cpu io pids\n")
    assert _finding("cgroups").found == "Version 2, without memory"
    controllers.write_text("cpu memory pids\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert (_finding("cgroups").state, _finding("cgroups").fix) == (
        "limited",
        "Run Nexus as root, on the host itself.",
    )
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert _finding("cgroups").state == "fine"
    assert "nexus-vms" in _finding("cgroups").found

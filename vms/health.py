"""What running VMs needs on this host."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings

from nexus_site.core.errors import Broken, NexusError
from nexus_site.core.health import Finding
from vms import choice
from vms.drivers import FIRECRACKER, QEMU, installed_firecracker
from vms.hypervisors import kvm
from vms.hypervisors.base import Probe
from vms.hypervisors.firecracker import FirecrackerBinary, cgroups
from vms.hypervisors.firecracker.jail import jail_problem
from vms.hypervisors.firecracker.network_check import network_problem, network_warnings
from vms.hypervisors.firecracker.resolver import find_resolver
from vms.hypervisors.qemu.binary import find_qemu
from vms.hypervisors.qemu.install import install_command

CGROUPS = Path("/sys/fs/cgroup")
VSOCK = "Nothing of the host is needed: Firecracker brings its own, QEMU's agents use virtio-serial"
NO_RELEASE = "Not in use: no Firecracker release is installed"
NO_KVM = "VMs run in emulation, several times slower, and on QEMU alone"


def findings() -> list[Finding]:
    """What VMs would run on here, and why. Programs are started, and, where a release of
    Firecracker has come since, a guest that tries KVM."""
    firecracker, qemu = choice.probe(FIRECRACKER), choice.probe(QEMU)
    release = installed_firecracker()
    return [
        _hypervisor(),
        _firecracker(firecracker, qemu, release),
        _qemu(firecracker),
        _kvm(firecracker, qemu),
        _jailer(release),
        _network(release),
        Finding("vsock", "vsock", "fine", VSOCK),
        _cgroups(),
    ]


def _hypervisor() -> Finding:
    key, title = "hypervisor", "Hypervisor"
    try:
        best = choice.foresee(choice.AUTO)
    except NexusError as error:
        return Finding(key, title, "missing", error.text, "No VM can run.", error.hint)
    found = f"VMs run on {best}" if best else "The first start of a VM finds out"
    return Finding(key, title, "fine", found)


def _firecracker(probe: Probe, qemu: Probe, release: FirecrackerBinary | None) -> Finding:
    key, title = "firecracker", "Firecracker"
    problem = next(iter(probe.problems), None)
    if problem is None:
        return Finding(key, title, "fine", f"{probe.version}, a guest ran with it")
    if release is None and qemu.accelerator == "tcg":
        found = "Not installed; it needs KVM, which is not known to work here"
        return Finding(key, title, "fine", found)
    meaning = (
        "VMs that wish for it run with less."
        if probe.usable
        else "VMs run on QEMU. Firecracker starts them sooner and, as root, jails them."
    )
    version = f"{release.version}: " if release else ""
    found = version + problem.text
    return Finding(key, title, "limited", found, meaning, problem.fix, problem.command)


def _qemu(firecracker: Probe) -> Finding:
    key, title = "qemu", "QEMU"
    try:
        qemu = find_qemu()
    except Broken as error:
        found = f"{error.text} {error.detail}".strip()
        if firecracker.usable:
            meaning = "VMs run on Firecracker; images that run something cannot be built."
            return Finding(key, title, "limited", found, meaning, "Install it.", error.hint)
        return Finding(key, title, "missing", found, "No VM can run.", "Install it.", error.hint)
    found = f"{qemu.version}, {qemu.path}, machine {qemu.machine}"
    if qemu.machine == "microvm":
        return Finding(key, title, "fine", found)
    return Finding(
        key,
        title,
        "limited",
        found,
        "It has no firmware for microvm, so VMs run on q35 and start more slowly.",
        "Install the system's QEMU with its firmware.",
        install_command(),
    )


def _kvm(*probes: Probe) -> Finding:
    """Each driver's first start tried it with a guest; what one of them can use works."""
    tried = [choice.label(probe.name) for probe in probes if probe.accelerator == "kvm"]
    if tried:
        found = f"{kvm.KVM}: a guest ran with it, by {' and '.join(tried)}"
        return Finding("kvm", "KVM", "fine", found)
    problem = next((p for probe in probes[::-1] for p in probe.problems if "KVM" in p.text), None)
    problem = kvm.access_problem(kvm.KVM, NO_KVM) or problem
    found = f"{kvm.KVM} is there" if kvm.KVM.exists() else f"There is no {kvm.KVM}"
    if problem is None:
        return Finding(
            "kvm", "KVM", "limited", found, f"{NO_KVM}.", "Start a first VM: it tries KVM."
        )
    return Finding("kvm", "KVM", "limited", found, problem.text, problem.fix, problem.command)


def _jailer(release: FirecrackerBinary | None) -> Finding:
    key, title = "jailer", "Jailer"
    if release is None:
        return Finding(key, title, "fine", NO_RELEASE)
    problem = jail_problem(release, settings.NEXUS.run_dir)
    if problem is None:
        found = "On: each VMM is a user of its own, in a directory and a control group of its own"
        return Finding(key, title, "fine", found)
    meaning = (
        "Firecracker's VMMs run with the rights of Nexus; VMs that do not name it run on QEMU."
    )
    found = f"Off: {problem.text}"
    return Finding(key, title, "limited", found, meaning, problem.fix, problem.command)


def _network(release: FirecrackerBinary | None) -> Finding:
    """The networks of VMs that Firecracker runs; QEMU brings its own."""
    key, title = "network", "VM network"
    if release is None:
        return Finding(key, title, "fine", NO_RELEASE)
    pool = settings.NEXUS.network
    problem = jail_problem(release, settings.NEXUS.run_dir) or network_problem(pool)
    if problem is None:
        warning = next(iter(network_warnings(find_resolver())), None)
        if warning is None:
            return Finding(key, title, "fine", f"A network each, of {pool}")
        meaning = "VMs have a network on which something does not work."
        return Finding(key, title, "limited", warning.text, meaning, warning.fix, warning.command)
    meaning = "VMs have no network on Firecracker; those that do not name it run on QEMU."
    return Finding(key, title, "limited", problem.text, meaning, problem.fix, problem.command)


def _cgroups() -> Finding:
    """Control groups (version 2), in which jailed VMMs are held."""
    key, title = "cgroups", "Control groups"
    meaning = "VMs keep to their vCPUs and memory, but nothing limits what their VMM adds to that."
    if not (CGROUPS / "cgroup.controllers").exists():
        found = "The host does not have control groups of version 2 alone"
        fix = "Boot it with systemd.unified_cgroup_hierarchy=1, or update it."
        return Finding(key, title, "limited", found, meaning, fix)
    if lacking := cgroups.missing_controllers(CGROUPS):
        found = f"Version 2, without {', '.join(lacking)}"
        fix = "Use a kernel that has them, or let this container have them."
        return Finding(key, title, "limited", found, meaning, fix)
    if os.geteuid() != 0 or not os.access(CGROUPS, os.W_OK):
        found = f"Version 2, but Nexus may make no groups in {CGROUPS}"
        fix = "Run Nexus as root, on the host itself."
        return Finding(key, title, "limited", found, meaning, fix)
    names = ", ".join(cgroups.CONTROLLERS)
    found = f"Version 2, with {names}: jailed VMMs are held in {CGROUPS / cgroups.PARENT}"
    return Finding(key, title, "fine", found)

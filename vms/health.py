"""What running VMs needs on this host."""

from __future__ import annotations

import os
from pathlib import Path

from django.conf import settings

from nexus_site.core.errors import Broken
from nexus_site.core.health import Finding
from vms.hypervisors.qemu.binary import QemuBinary, find_qemu
from vms.hypervisors.qemu.install import install_command
from vms.hypervisors.qemu.kvm import KVM, kvm_problem

VSOCK = Path("/dev/vhost-vsock")
CGROUPS = Path("/sys/fs/cgroup")
OWN_CGROUP = Path("/proc/self/cgroup")
CONTROLLERS = ("cpu", "memory", "pids")
_DELEGATE = "/etc/systemd/system/user@.service.d"


def findings() -> list[Finding]:
    """QEMU, KVM, vsock and control groups. Starts QEMU to ask what it can do, but no guest."""
    try:
        qemu = find_qemu()
    except Broken as error:
        found = f"{error.text} {error.detail}".strip()
        missing = Finding(
            "qemu", "QEMU", "missing", found, "No VM can run.", "Install it.", error.hint
        )
        return [missing, _vsock(), _cgroups()]
    return [_qemu(qemu), _kvm(qemu), _vsock(), _cgroups()]


def _qemu(qemu: QemuBinary) -> Finding:
    found = f"{qemu.version}, {qemu.path}, machine {qemu.machine}"
    if qemu.machine == "microvm":
        return Finding("qemu", "QEMU", "fine", found)
    return Finding(
        "qemu",
        "QEMU",
        "limited",
        found,
        "It has no firmware for microvm, so VMs run on q35 and start more slowly.",
        "Install the system's QEMU with its firmware.",
        install_command(),
    )


def _kvm(qemu: QemuBinary) -> Finding:
    """What the first start of a VM found out by trying is remembered, and read here."""
    problem = kvm_problem(qemu, None, settings.NEXUS.run_dir)
    if problem is None:
        return Finding("kvm", "KVM", "fine", f"{KVM}: a guest ran with it")
    found = f"{KVM} is there" if KVM.exists() else f"There is no {KVM}"
    return Finding("kvm", "KVM", "limited", found, problem.text, problem.fix, problem.command)


def _vsock() -> Finding:
    if not VSOCK.exists():
        found = f"There is no {VSOCK}"
        fix, command = "Load the module.", "sudo modprobe vhost_vsock"
    else:
        try:
            os.close(os.open(VSOCK, os.O_RDWR | os.O_CLOEXEC))
        except OSError as error:
            found = f"{VSOCK} does not open: {error.strerror}"
            fix = "Let this user open it (until the host boots again), or load the module."
            command = f"sudo modprobe vhost_vsock; sudo setfacl -m u:{os.geteuid()}:rw {VSOCK}"
        else:
            return Finding("vsock", "vsock", "fine", f"{VSOCK} opens")
    meaning = "Agents are reached over virtio-serial instead; nothing is lost with QEMU."
    return Finding("vsock", "vsock", "limited", found, meaning, fix, command)


def _cgroups() -> Finding:
    """Whether control groups (version 2) for VMs could be made below the one of Nexus."""
    key, title = "cgroups", "Control groups"
    meaning = "VMs keep to their vCPUs and memory, but nothing limits what their VMM adds to that."
    if not (CGROUPS / "cgroup.controllers").exists():
        found = "The host does not have control groups of version 2 alone"
        fix = "Boot it with systemd.unified_cgroup_hierarchy=1, or update it."
        return Finding(key, title, "limited", found, meaning, fix)
    own = CGROUPS / OWN_CGROUP.read_text().strip().rpartition("::/")[2]
    controllers = _controllers(own)
    lacking = [name for name in CONTROLLERS if name not in controllers]
    if not lacking and os.access(own, os.W_OK):
        return Finding(key, title, "fine", f"Version 2, delegated: {', '.join(CONTROLLERS)}")
    found = f"Version 2, without {', '.join(lacking)}" if lacking else f"Not delegated: {own}"
    conf = f"printf '[Service]\\nDelegate={' '.join(CONTROLLERS)}\\n'"
    return Finding(
        key,
        title,
        "limited",
        found,
        meaning,
        "Where systemd runs: delegate them to users, sign in again, and restart Nexus.",
        f"sudo mkdir -p {_DELEGATE} && {conf} | sudo tee {_DELEGATE}/delegate.conf"
        " && sudo systemctl daemon-reload",
    )


def _controllers(group: Path) -> list[str]:
    try:
        return (group / "cgroup.controllers").read_text().split()
    except OSError:
        return []

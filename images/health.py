"""What making images and root file systems, and booting them, needs on this host."""

from __future__ import annotations

import os
import pwd
import shlex
import shutil
from pathlib import Path

from images.downloads.signed_text import GPGV
from images.formats.e2fsprogs import find_tool, install_command, search_path
from images.models import Kernel
from images.providers import mmdebstrap
from images.services.kernels import boot_files, kernel_dir
from images.services.places import host_arch
from nexus_site.core.errors import NexusError
from nexus_site.core.health import Finding

E2FSPROGS = ("mke2fs", "e2fsck", "resize2fs", "debugfs")
_E2FS = "e2fsprogs"
_FIRST_RANGE = "100000-165535"


def findings() -> list[Finding]:
    return [_kernel(), _e2fsprogs(), _mmdebstrap(), _gpgv()]


def _kernel() -> Finding:
    kernel = Kernel.objects.filter(arch=host_arch(), is_default=True).first()
    if kernel is None:
        return Finding("kernel", "Kernel", "fine", "None yet: it comes with the first VM")
    directory = kernel_dir(kernel)
    if not (directory / "vmlinux").exists():
        return Finding(
            "kernel",
            "Kernel",
            "missing",
            f"{directory / 'vmlinux'} is missing",
            "VMs that boot it do not start.",
            "Move what is left of it away; the next start of a VM installs it again.",
            shlex.join(["mv", str(directory), f"{directory}.damaged"]),
        )
    try:
        initrd = f"its initrd {boot_files(kernel).initrd.name}"
    except NexusError:
        initrd = "its initrd is made by the next start"
    return Finding("kernel", "Kernel", "fine", f"{kernel.name}, {initrd}")


def _e2fsprogs() -> Finding:
    try:
        paths = [find_tool(tool) for tool in E2FSPROGS]
    except NexusError as error:
        return Finding(
            "e2fsprogs",
            _E2FS,
            "missing",
            error.text,
            "No image is made, checked, grown or looked into.",
            "Install it.",
            install_command(_E2FS, apk="e2fsprogs e2fsprogs-extra"),
        )
    return Finding("e2fsprogs", _E2FS, "fine", ", ".join(paths))


def _mmdebstrap() -> Finding:
    """Debian's tools; where the user is not root, also what gives it other user IDs."""
    problem, fix, command = "", "", ""
    try:
        program = mmdebstrap.find_program()
    except NexusError as error:
        problem, fix, command = error.text, "Install it as root.", mmdebstrap.INSTALL
    else:
        if os.geteuid() != 0:
            problem, fix, command = _namespace_problem()
    if not problem:
        return Finding("mmdebstrap", "mmdebstrap", "fine", program)
    meaning = "Debian's root file systems cannot be made here; those of other sources can."
    return Finding("mmdebstrap", "mmdebstrap", "limited", problem, meaning, fix, command)


def _gpgv() -> Finding:
    program = shutil.which(GPGV)
    if program is not None:
        return Finding(GPGV, GPGV, "fine", program)
    return Finding(
        GPGV,
        GPGV,
        "limited",
        "gpgv is missing",
        "Kernels of kernel.org are not built: nobody checks its list of checksums.",
        "Install it as root.",
        install_command(GPGV, dnf="gnupg2", pacman="gnupg"),
    )


def _namespace_problem() -> tuple[str, str, str]:
    """Why this user cannot have other user IDs in a namespace; what to do, what to type."""
    helpers = ("newuidmap", "newgidmap")
    missing = [name for name in helpers if shutil.which(name, path=search_path()) is None]
    if missing:
        names = {"dnf": "shadow-utils", "apk": "shadow-uidmap", "pacman": "shadow"}
        command = install_command("uidmap", **names)
        return f"{' and '.join(missing)} missing", "Install them as root.", command
    user = pwd.getpwuid(os.geteuid()).pw_name
    files = (Path("/etc/subuid"), Path("/etc/subgid"))
    if all(_has_range(file, user) for file in files):
        return "", "", ""
    command = f"sudo usermod --add-subuids {_FIRST_RANGE} --add-subgids {_FIRST_RANGE} {user}"
    return (
        f"{user} has no range in /etc/subuid and /etc/subgid",
        "Give it one that nobody else has.",
        command,
    )


def _has_range(file: Path, user: str) -> bool:
    try:
        lines = file.read_text().splitlines()
    except OSError:
        return False
    return any(line.split(":")[0] in (user, str(os.geteuid())) for line in lines)

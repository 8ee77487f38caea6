"""Where a VM's files are."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

from django.conf import settings

from nexus_site.core.errors import Broken
from vms.models import VM, VMSnapshot

CONSOLE = "console.log"
MOUNTS = Path("/proc/self/mountinfo")
_OCTAL = re.compile(r"\\([0-7]{3})")  # how blanks are written there


def vm_dir(vm: VM) -> Path:
    """The VM's own directory: sockets, logs, the records of its monitor. Not made here."""
    return Path(settings.NEXUS.data_dir) / "vms" / vm.ref


def suspended_memory(vm: VM) -> Path:
    """Where the memory of the VM is while it is suspended."""
    return vm_dir(vm) / "memory"


def checkpoint_memory(snapshot: VMSnapshot) -> Path:
    """Where the memory of a checkpoint is. Not made here."""
    return Path(settings.NEXUS.data_dir) / "memory" / snapshot.ref


def make_vm_dir(vm: VM) -> Path:
    path = vm_dir(vm)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def remove_vm_dir(vm: VM) -> None:
    """Remove it, once every driver has cleaned up there.

    Raises ``Broken`` while something is still mounted in it: a drive may be behind that.
    """
    directory = vm_dir(vm)
    if mounts := _mounts_below(directory):
        raise Broken(
            f"Something is still mounted in the directory of “{vm.name}”: {mounts[0]}",
            hint=f"Unmount it (umount {shlex.quote(mounts[0])}), then try again.",
            code="still-mounted",
        )
    shutil.rmtree(directory, ignore_errors=True)


def _mounts_below(directory: Path) -> list[str]:
    prefix = f"{directory.resolve()}/"
    mounts = [line.split()[4] for line in MOUNTS.read_text(errors="surrogateescape").splitlines()]
    found = [_OCTAL.sub(lambda octal: chr(int(octal[1], 8)), mount) for mount in mounts]
    return [mount for mount in found if mount.startswith(prefix)]


def console_files(vm: VM) -> list[Path]:
    """The console log's parts, oldest first; those that exist."""
    base = vm_dir(vm)
    return [p for p in (base / f"{CONSOLE}.1", base / CONSOLE) if p.exists()]

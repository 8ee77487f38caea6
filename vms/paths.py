"""Where a VM's files are."""

from __future__ import annotations

import shutil
from pathlib import Path

from django.conf import settings

from vms.models import VM

CONSOLE = "console.log"


def vm_dir(vm: VM) -> Path:
    """The VM's own directory: sockets, logs, the records of its monitor. Not made here."""
    return Path(settings.NEXUS.data_dir) / "vms" / vm.ref


def make_vm_dir(vm: VM) -> Path:
    path = vm_dir(vm)
    path.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path


def remove_vm_dir(vm: VM) -> None:
    shutil.rmtree(vm_dir(vm), ignore_errors=True)


def console_files(vm: VM) -> list[Path]:
    """The console log's parts, oldest first; those that exist."""
    base = vm_dir(vm)
    return [p for p in (base / f"{CONSOLE}.1", base / CONSOLE) if p.exists()]

"""Memory of guests on the disk: whole, or not there."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from nexus_site.core.errors import Conflict
from vms.drivers import driver_of
from vms.hypervisors.base import Handle
from vms.models import VM, Boot


def unfinished(directory: Path) -> Path:
    """What a memory directory is called until it is whole."""
    return directory.with_name(f"{directory.name}.new")


@contextmanager
def being_made(directory: Path) -> Iterator[Path]:
    """An empty directory for the block to fill; ``unfinished`` becomes ``directory`` by the
    caller's ``finish``. Where the block fails nothing of it is left."""
    made = unfinished(directory)
    shutil.rmtree(made, ignore_errors=True)  # a killed worker's
    made.mkdir(parents=True, mode=0o700)
    try:
        yield made
    except BaseException:
        shutil.rmtree(made, ignore_errors=True)
        raise


def finish(directory: Path) -> None:
    """What has been made is there under its own name; safe to repeat."""
    made = unfinished(directory)
    if made.exists():
        shutil.rmtree(directory, ignore_errors=True)
        made.rename(directory)


def save(vm: VM, handle: Handle, directory: Path, *, later: bool = False) -> None:
    """Save the memory of a VM whose CPUs stand still into an empty directory. With ``later``,
    what can wait until it goes on is for the driver to ``complete``.

    A VMM saves once in a pause. Where it did already, because a worker was killed then or the
    VM stays paused for long, the guest runs for a moment in between.
    """
    driver = driver_of(vm)
    try:
        driver.snapshot(handle, directory, later=later)
    except Conflict as error:
        if error.code != "vmm-state":
            raise
        driver.resume(handle)
        driver.pause(handle)
        driver.snapshot(handle, directory, later=later)


def saved_by(vm: VM, handle: Handle) -> dict[str, str]:
    """Who saved it: hypervisor, version, accelerator."""
    boot = Boot.objects.filter(vm=vm, ended_at=None).first()
    return {
        "hypervisor": vm.vmm,
        "version": boot.hypervisor_version if boot else "",
        "accelerator": handle.accelerator,
    }


def disk_bytes(directory: Path) -> int:
    """What its files take on the disk: they have holes."""
    return sum(path.stat().st_blocks * 512 for path in directory.iterdir())

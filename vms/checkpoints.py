"""Checkpoints: snapshots of VMs with their memory, which other VMs go on from."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from drives import services as drive_services
from images.files import copy_sparse
from nexus_site.core.errors import Conflict
from nexus_site.core.steps import Run, Step
from vms import saved_memory, snapshotting
from vms.drivers import driver_of
from vms.hypervisors.base import Handle
from vms.live_drives import hold
from vms.models import VM, VMSnapshot
from vms.paths import checkpoint_memory, suspended_memory, vm_dir
from vms.states import State


def step() -> Step:
    """The step that takes the checkpoint which the operation names ``vm_snapshot``."""
    return Step(
        "checkpoint",
        "Save memory and drives",
        lambda run: take(snapshotting.find_ready(run), run),
        done=snapshotting.is_taken,
        undo=snapshotting.drop,
    )


def take(snapshot: VMSnapshot, run: Run) -> str:
    """Save the memory of the snapshot's VM and copy its drives, within one pause; a VM that ran
    goes on after it. Safe to repeat: what an interrupted attempt left is made anew.

    Raises ``Conflict`` unless it runs, is paused or suspended, ``Broken`` (code "disk-full")
    where there is no room. Then no memory is left; the rows are the caller's to remove
    (``snapshotting.drop``).
    """
    run.keep(vm_snapshot=snapshot.ref)
    parts = snapshotting.parts_of(snapshot)
    directory = checkpoint_memory(snapshot)
    with saved_memory.being_made(directory) as made:
        with hold([part.drive for part in parts], run, with_memory=True) as held:
            vm = VM.objects.get(pk=snapshot.vm_id)
            snapshot.memory_of = _fill(vm, made)
            drive_services.copy_snapshots(parts, held.consistency, drive_services.progress_of(run))
        driver_of(vm).complete(made)
        snapshot.memory_bytes = saved_memory.disk_bytes(made)
    saved_memory.finish(directory)
    snapshotting.mark_ready(snapshot, held)
    size = f"{snapshot.memory_bytes / (1 << 20):.0f} MiB of memory"
    return f"{snapshot.name}, {size}{snapshotting.standstill(held)}"


def _fill(vm: VM, made: Path) -> dict[str, str]:
    """Fill ``made``; who saved what is there."""
    if vm.state == State.SUSPENDED:
        _share(suspended_memory(vm), made)
        names = ("hypervisor", "version", "accelerator")
        return {name: vm.saved_memory.get(name, "") for name in names}
    handle = driver_of(vm).adopt(vm_dir(vm))
    if not isinstance(handle, Handle):
        raise Conflict(
            f"The VM “{vm.name}” is {vm.state}; only what runs, or is suspended, has a memory.",
            hint=f"Start it first: nexusctl vm start {vm.name}",
            code="vm-not-running",
        )
    saved_memory.save(vm, handle, made, later=True)
    return saved_memory.saved_by(vm, handle)


def _share(source: Path, made: Path) -> None:
    """The files of a memory never change, so the same ones serve both."""
    for path in source.iterdir():
        try:
            os.link(path, made / path.name)
        except OSError:  # on another file system
            copy_sparse(path, made / path.name)
            shutil.copystat(path, made / path.name)

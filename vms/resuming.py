"""What a start goes on from: the memory of a guest that ran before. Without one, the guest boots.

There are three, looked for in this order:

- a suspended VM's own memory. It is good for one start: the drives change with the first moment
  that the guest runs. What cannot be loaded is kept, and the VM is suspended as before;
- the checkpoint that a fork is to go on from (``VM.resume_from``);
- a warm template (``vms.warm``), for a VM whose only drive is an image's untouched copy, or is
  to be: the drive is made from the template's, so memory and disk are of the same moment. Where
  that does not work the guest boots.

A ``cold`` start looks for none; it forgets the first two.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core import events
from nexus_site.core.errors import NexusError
from vms import saved_memory, warm
from vms.capacity import require_room
from vms.hypervisors.base import Handle, Hypervisor, VmmSpec
from vms.models import VM, Memory, WarmTemplate
from vms.paths import checkpoint_memory, suspended_memory

WORDS_MOST = 300  # characters that a boot keeps of a reason
LOADING = "memory-loading"  # what a start loads, or only since when it loads something


@dataclass(frozen=True)
class Start:
    """A VMM that runs; ``memory`` is empty where its guest boots. ``words`` say what, and why."""

    handle: Handle
    memory: Memory | None
    words: str


def start(
    driver: Hypervisor,
    vm: VM,
    specify: Callable[[], VmmSpec],
    fresh: warm.Fresh,
    *,
    cold: bool = False,
) -> Start:
    """Start the VM's VMM with a saved memory if there is one for it, else let the guest boot.

    ``specify`` makes the spec, once the drives are what they are to be. Raises as the driver
    does; for memory that cannot be loaded, unless a warm template's, "snapshot-incompatible".
    Whoever records that the VM runs calls ``spend``.
    """
    settle(vm)
    if cold:
        forget(vm)
    elif vm.saved_memory:
        return _go_on(driver, vm, specify())
    elif vm.resume_from is not None:
        return _fork(driver, vm, specify())
    template, why = (None, "a cold start was asked for") if cold else warm.find(vm, fresh)
    if template is not None:
        try:
            return _warm(driver, vm, specify, template)
        except NexusError as error:
            why = f"the warm template could not be resumed: {error.text}"
            warm.missed(template, error)
    warm.restore_drive(vm)
    _note(vm, None, why)
    drive_services.mark_used(_drives(vm))
    return Start(driver.launch(specify()), None, why)


def forget(vm: VM) -> None:
    """Give up the memory that the next start would go on from; nothing if there is none."""
    for directory in (suspended_memory(vm), _loading(vm)):
        shutil.rmtree(directory, ignore_errors=True)
    if vm.saved_memory or vm.resume_from_id:
        vm.saved_memory, vm.resume_from = {}, None
        with transaction.atomic():
            vm.save(update_fields=["saved_memory", "resume_from"])
            events.append("vm.memory_dropped", vm)


def settle(vm: VM) -> None:
    """After a start that was cut short: what it was loading is the VM's memory again, unless its
    guest has run since, and so may have written to its drives."""
    loading = _loading(vm)
    if not loading.exists():
        return
    began = loading.stat().st_mtime_ns
    if any(drive_services.require_file(d).stat().st_mtime_ns > began for d in _drives(vm)):
        forget(vm)
    elif vm.saved_memory and not suspended_memory(vm).exists():
        loading.rename(suspended_memory(vm))
    else:
        shutil.rmtree(loading)


def spend(vm: VM) -> None:
    """The VM runs: nothing goes on from the same memory again, and its drives are used."""
    shutil.rmtree(_loading(vm), ignore_errors=True)  # whoever has mapped it keeps it
    if vm.saved_memory or vm.resume_from_id:
        VM.objects.filter(pk=vm.pk).update(saved_memory={}, resume_from=None)
        vm.saved_memory, vm.resume_from = {}, None
    drive_services.mark_used(_drives(vm))


def _go_on(driver: Hypervisor, vm: VM, spec: VmmSpec) -> Start:
    require_room(f"Resume VM {vm.name}", memory_bytes=vm.saved_memory.get("bytes", 0))
    since = str(vm.saved_memory.get("saved_at", ""))[:19]
    memory = suspended_memory(vm)
    saved_memory.finish(memory)
    memory.mkdir(exist_ok=True)  # where it is gone the driver finds that it is not whole
    memory.rename(_loading(vm))
    words = f"its memory of {since}" if since else "its memory"
    _note(vm, Memory.SUSPENDED, words)
    try:
        with _loading_memory(vm) as loading:
            handle = driver.restore(spec, loading)
    except NexusError as error:
        if error.code == "snapshot-incompatible":
            error.hint = f"Give its memory up, and boot it: nexusctl vm start {vm.name} --cold"
        raise
    return Start(handle, Memory.SUSPENDED, words)


def _fork(driver: Hypervisor, vm: VM, spec: VmmSpec) -> Start:
    checkpoint = vm.resume_from
    assert checkpoint is not None, "checked before"
    words = f"checkpoint {checkpoint.name} of {checkpoint.vm.name}"
    _note(vm, Memory.CHECKPOINT, words)
    _loading(vm).mkdir()
    with _loading_memory(vm):
        handle = driver.restore(spec, checkpoint_memory(checkpoint))
    return Start(handle, Memory.CHECKPOINT, words)


def _warm(
    driver: Hypervisor, vm: VM, specify: Callable[[], VmmSpec], template: WarmTemplate
) -> Start:
    _note(vm, Memory.WARM, str(template))
    with warm.giving_drive(vm, template) as (checkpoint, whole):
        handle = driver.restore(specify(), checkpoint_memory(checkpoint), disks_whole=whole)
    warm.hit(template)
    return Start(handle, Memory.WARM, str(template))


def _note(vm: VM, memory: Memory | None, words: str) -> None:
    """The start under way says what its guest is before that may run. Whoever finds it running,
    after a worker was killed, tells it accordingly who it is."""
    vm.boots.filter(ended_at=None).update(resumed_from=memory or "", resumed=words[:WORDS_MOST])


@contextmanager
def _loading_memory(vm: VM) -> Iterator[Path]:
    """Says, for the block and until ``spend``, since when the guest may run; where the block
    fails, all is as it was. A worker that is killed leaves it to ``settle``."""
    loading = _loading(vm)
    os.utime(loading)
    try:
        yield loading
    except BaseException:
        settle(vm)
        raise


def _loading(vm: VM) -> Path:
    return suspended_memory(vm).with_name(LOADING)


def _drives(vm: VM) -> list[Drive]:
    return [a.drive for a in vm.attachments.all()]

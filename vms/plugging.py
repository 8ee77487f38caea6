"""What it takes to plug drives into VMs that run, and to unplug them: the lists of steps.

A drive is attached from the request to plug it on, and until it has been unplugged. Every step
looks at what runs now: a VM that has ended meanwhile has its drives at its next start anyway.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

from django.db import transaction

from drives import services as drive_services
from drives.models import Drive
from guest_agent.connection import AgentConnection
from images import services as image_services
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NexusError, Retryable
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.steps import Plan, Run, Step
from vms import supervision
from vms.drivers import driver_of
from vms.hypervisors.base import Disk, Handle
from vms.lifecycle import vm_of
from vms.live_drives import alone_with
from vms.models import VM, Attachment
from vms.paths import vm_dir

log = logging.getLogger(__name__)

T = TypeVar("T")
AGENT_SECONDS = 30.0  # for the agent to answer at all
SEEN_SECONDS = 60.0  # for the guest to find a disk
LOOK = 0.1  # seconds between two looks at whether it has


def plug_plan(operation: Operation) -> Plan:
    return [
        Step("modules", "Load the guest's disk drivers", load_modules, done=needs_none),
        Step("plug", "Plug the drive in", plug, done=needs_none),
        Step("guest", "Wait for the guest to find it", wait_for_guest, done=needs_none),
    ]


def unplug_plan(operation: Operation) -> Plan:
    return [
        Step("guest", "Have the guest give the drive up", release, done=needs_none),
        Step("unplug", "Unplug the drive", unplug, done=needs_none),
        Step("detach", "Record that it is detached", forget),
    ]


def needs_none(run: Run) -> str | None:
    """The VM does not run any more, or it runs again and was started with the drive."""
    vm = vm_of(run)
    return None if _pluggable(vm, run.params["drive"]) else "the VM does not run as it did"


def load_modules(run: Run) -> str:
    vm = vm_of(run)
    boot = vm.boots.first()
    if boot is None or boot.kernel is None:
        raise Conflict(f"The kernel that “{vm.name}” runs is not here any more.", code="no-hotplug")
    modules = image_services.hotplug_modules(boot.kernel)
    for name, image in modules:
        _ask(run, vm, partial(AgentConnection.load_module, name=name, image=image))
    return ", ".join(name for name, _ in modules) or "they are in its kernel"


def plug(run: Run) -> None:
    attachment = Attachment.objects.select_related("drive").get(drive=_drive_id(run))
    drive = attachment.drive
    disk = Disk(drive.ref, drive_services.require_file(drive), attachment.read_only)
    with _running(run) as (vm, handle):
        drive_services.mark_used([drive])
        driver_of(vm).plug(handle, disk)


def wait_for_guest(run: Run) -> str:
    vm, ref = vm_of(run), run.params["drive"]
    deadline = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < deadline:
        disk = _ask(run, vm, lambda agent: agent.find_disk(ref))
        if disk.device:
            run.keep(device=disk.device)
            return f"it is {disk.device} there"
        run.check()
        time.sleep(LOOK)
    raise Broken(
        f"The guest of “{vm.name}” does not find the drive.",
        hint=f"See what its kernel says: nexusctl vm logs {vm.name}",
        code="drive-not-seen",
    )


def plug_failed(operation: Operation, error: NexusError) -> None:
    """The drive is out of the VM again; it stays attached where it cannot be taken out."""
    vm = VM.objects.filter(pk=NexusID.parse(operation.params["vm"])).first()
    ref = operation.params["drive"]
    if vm is None:
        return
    try:
        handle = _pluggable(vm, ref)
        if handle:
            driver_of(vm).unplug(handle, ref)
    except Exception:
        log.exception("the drive %s stays in %s", ref, vm.name)
        return
    _detach(vm, NexusID.parse(ref))


def release(run: Run) -> str:
    """Raises ``Conflict`` while the guest uses the drive; nothing has changed then."""
    ref = run.params["drive"]
    with _running(run) as (vm, _):
        disk = _ask(run, vm, lambda agent: agent.release_disk(ref))
    if disk.used_by:
        users = ", ".join(disk.used_by)
        raise Conflict(
            f"The guest of “{vm.name}” uses the drive: {users}",
            hint=f"Unmount it in the guest first: umount {disk.used_by[0]}",
            code="drive-mounted",
            extra={"used_by": list(disk.used_by)},
        )
    return f"it was {disk.device} there" if disk.device else "it had none such"


def unplug(run: Run) -> None:
    with _running(run) as (vm, handle):
        driver_of(vm).unplug(handle, run.params["drive"])


def forget(run: Run) -> None:
    _detach(vm_of(run), _drive_id(run))


@transaction.atomic
def _detach(vm: VM, drive_id: NexusID) -> None:
    drive = Drive.objects.filter(pk=drive_id).first()
    gone, _ = Attachment.objects.filter(vm=vm, drive=drive_id).delete()
    if gone and drive is not None:
        events.append("drive.detached", drive, vm=vm.ref, vm_name=vm.name)


@contextmanager
def _running(run: Run) -> Iterator[tuple[VM, Handle]]:
    """The VM, which nobody holds still meanwhile, and its VMM."""
    vm = vm_of(run)
    with alone_with(vm, run):
        handle = _pluggable(vm, run.params["drive"])
        if handle is None:
            raise Conflict(f"The VM “{vm.name}” has ended meanwhile.", code="vmm-ended")
        yield vm, handle


def _ask(run: Run, vm: VM, call: Callable[[AgentConnection], Awaitable[T]]) -> T:
    """What the agent answers; a worker that has just begun may still be dialling it."""
    deadline = time.monotonic() + AGENT_SECONDS
    while True:
        try:
            return supervision.with_agent(vm, call)
        except Retryable:
            if time.monotonic() > deadline:
                raise
        run.check()
        time.sleep(LOOK)


def _pluggable(vm: VM, ref: str) -> Handle | None:
    """The VM's VMM, if it runs and was not started with the drive."""
    driver = driver_of(vm)
    found = driver.adopt(vm_dir(vm))
    if not isinstance(found, Handle) or driver.hotplug_problem(vm_dir(vm), ref):
        return None
    return found


def _drive_id(run: Run) -> NexusID:
    return NexusID.parse(run.params["drive"])

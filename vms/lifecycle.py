"""What it takes to start, stop, create and delete a VM: the lists of steps.

Every step is safe to repeat: it looks first whether reality already is as it should be.
Workers run these; nothing here knows of HTTP.
"""

from __future__ import annotations

import time
from contextlib import suppress

from django.conf import settings
from django.db import transaction

from drives import services as drive_services
from drives.models import Drive
from images import services as image_services
from images.models import Kernel
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import run_child
from nexus_site.core.steps import Plan, Run, Step
from vms import (
    live_drives,
    outcomes,
    provisioning_records,
    resuming,
    snapshotting,
    supervision,
    warm,
)
from vms.choice import choose, foretold
from vms.drivers import NAMES, driver_for, driver_of
from vms.hypervisors.base import Exit, Handle
from vms.models import VM
from vms.models.vms import VMs
from vms.paths import remove_vm_dir, vm_dir
from vms.queries import vm_list
from vms.services.rules import wish
from vms.specs import spec_of
from vms.states import ALIVE, AT_REST, Desired, State
from vms.transitions import move, try_move
from vms.warm_wishes import want_warm

POLL = 0.05  # seconds between two looks at a row or a process
LOOK = 2.0  # and where the supervisor says when there is news


def start_plan(operation: Operation) -> Plan:
    return [
        Step("storage", "Check the drives", check_drives),
        Step("kernel", "Prepare kernel and initrd", prepare_kernel),
        Step(
            "launch",
            "Launch the VMM",
            launch,
            done=already_launched,
            undo=kill,
            keeps=True,
            foresee=foresee_hypervisor,
        ),
        Step("agent", "Wait for the agent", wait_for_agent),
    ]


def stop_plan(operation: Operation) -> Plan:
    return [
        Step("shutdown", "Shut the guest down", shut_down, done=already_ended),
        Step("end", "Record how it ended", record_end),
    ]


def restart_plan(operation: Operation) -> Plan:
    again = Step("start", "Start it again", begin_start)
    return [*stop_plan(operation), again, *start_plan(operation)]


def create_plan(operation: Operation) -> Plan:
    """A VM whose rows are there already gets the storage of its drive."""
    plan = [Step("drive", "Make the drive", fill_drive, done=drive_is_there, keeps=True)]
    if operation.params.get("start"):
        plan.append(Step("start", "Start the VM", start_as_child, foresee=foresee_hypervisor))
    return plan


def delete_plan(operation: Operation) -> Plan:
    plan = [
        Step("shutdown", "End the VMM", shut_down, done=already_ended),
        Step("end", "Record how it ended", record_end),
    ]
    if operation.params.get("with_snapshots"):
        plan.append(Step("snapshots", "Delete its snapshots", delete_snapshots))
    plan.append(Step("delete", "Delete the VM", delete_row))
    if not operation.params.get("keep_drives"):
        plan.append(Step("drives", "Delete its drives", delete_drives))
    return plan


def vm_of(run: Run, rows: VMs | None = None) -> VM:
    """The VM that the operation is about: named when it was asked for, or made by a step.

    ``rows``: how it is read, with its drives for instance.
    """
    ref = run.made.get("vm") or run.params["vm"]
    vm = (VM.objects.all() if rows is None else rows).filter(pk=NexusID.parse(ref)).first()
    if vm is None:
        raise Conflict("The VM has been deleted meanwhile.", code="vm-gone")
    return vm


# Starting


def begin_start(run: Run) -> str | None:
    """created/stopped/… → starting, for operations that do more than start."""
    vm = vm_of(run)
    if vm.state not in AT_REST:
        return f"already {vm.state}"
    move(vm, State.STARTING, "start requested")
    return None


def check_drives(run: Run) -> str:
    """Every attached drive is there, or is to be made by this start; says how many."""
    return require_drives(vm_of(run, vm_list()))


def require_drives(vm: VM) -> str:
    drives = [a.drive for a in vm.attachments.all()]
    if not drives:
        raise Conflict(f"The VM “{vm.name}” has no root drive.", code="no-root-drive")
    for drive in drives:
        if not warm.is_to_be_made(drive):
            drive_services.require_file(drive)
    return f"{len(drives)} drive{'s' if len(drives) > 1 else ''}"


def prepare_kernel(run: Run) -> str:
    """The VM's kernel (or the default one) and the initrd that carries the agent."""
    kernel = kernel_for(vm_of(run))
    run.keep(kernel=kernel.ref)
    return kernel.name


def kernel_for(vm: VM) -> Kernel:
    kernel = vm.kernel or image_services.ensure_default_kernel()
    image_services.ensure_initrd(kernel)
    return kernel


def already_launched(run: Run) -> str | None:
    """After an interruption: the VMM that this start launched still runs."""
    if run.operation.attempt < 2:
        return None
    vm = vm_of(run)
    found = driver_of(vm).adopt(vm_dir(vm))
    if not isinstance(found, Handle):
        return None
    outcomes.vmm_runs(vm, found)
    return "it runs already"


def foresee_hypervisor(run: Run) -> str:
    """For a dry run: what the VM would run on as far as is known, and why."""
    return foretold(vm_of(run).hypervisor)


def launch(run: Run) -> str:
    """Start the VMM under its monitor; the VM is ``running`` when it returns.

    A wish that cannot be fulfilled is refused before anything has started.
    """
    kernel = Kernel.objects.get(pk=NexusID.parse(run.made["kernel"]))
    return launch_with(kernel, vm_of(run, vm_list()), run)


def launch_with(kernel: Kernel, vm: VM, run: Run) -> str:
    """The same, of a VM that was read with its drives."""
    if vm.state != State.STARTING:
        raise Conflict(f"The VM “{vm.name}” is {vm.state}; it is not to be started any more.")
    if run.params.get("cold"):
        resuming.forget(vm)  # before the hypervisor is chosen, which may depend on it
    choice = choose(vm, image_services.boot_files(kernel).vmlinux)
    boot = outcomes.open_boot(vm, kernel, choice)
    started = resuming.start(
        driver_for(choice.name),
        vm,
        lambda: spec_of(vm, kernel),
        warm.Fresh(kernel, choice),
        cold=bool(run.params.get("cold")),
    )
    wants_warm = started.words == warm.NONE_YET
    run.keep(kernel=kernel.ref, boot=boot.ref, wants_warm=wants_warm)
    supervision.wake()  # its agent is met while this is written down
    outcomes.vmm_runs(vm, started.handle, started)
    how = f"resumed: {started.words}" if started.memory else f"booted: {started.words}"
    return f"{choice}; {how}; pid {started.handle.pid}"


def wait_for_agent(run: Run) -> str:
    """Until the VM is ``ready``; fails when it ends, is stopped, or does not answer in time."""
    vm = vm_of(run)
    deadline = time.monotonic() + settings.NEXUS.agent_ready_timeout + 30
    phase, seen = "", -1
    while time.monotonic() < deadline:
        moves = supervision.moves()
        vm.refresh_from_db(fields=["state"])
        # The supervisor prepares guests, and announces it: without news there is no phase.
        if (phase or moves != seen) and (now := provisioning_records.phase_of(vm)):
            deadline = time.monotonic() + settings.NEXUS.agent_ready_timeout
            if now != phase:
                run.progress(note=now)
                phase = now
        if vm.state == State.READY:
            want_warm(run, vm)
            boot = vm.boots.first()
            seconds = boot.seconds_to_hello if boot else None
            return f"hello after {seconds:.1f} s" if seconds else "ready"
        if vm.state not in (State.STARTING, State.RUNNING):
            break
        run.check()
        seen = moves
        supervision.wait_for_move(moves, LOOK)
    raise provisioning_records.failure_of(vm) or outcomes.not_ready(vm)


def kill(run: Run) -> None:
    """Undo of a launch: nothing of the VMM is left."""
    vm = vm_of(run)
    try_move(vm, State.STOPPING, "the start is undone", only_from=ALIVE)
    ended = outcomes.end_vmm(vm)
    outcomes.vmm_ended(vm, ended)


def start_as_child(run: Run) -> str | None:
    def open_child(parent: Operation) -> Operation:
        from nexus_site.core.operations import open_operation

        vm = vm_of(run)
        child = open_operation(
            "vm.start",
            f"Start VM {vm.name}",
            subject=vm,
            params={"vm": vm.ref, "cold": bool(run.params.get("cold"))},
            parent=parent,
        )
        wish(vm, Desired.RUNNING)
        move(vm, State.STARTING, "start requested")
        return child

    run_child(run, "start", open_child)
    return None


def start_failed(operation: Operation, error: NexusError) -> None:
    """Whatever broke a start: nothing of the VMM is left, the VM says why it failed, and has the
    drive that the start was to make."""
    ref = operation.context.get("vm") or operation.params.get("vm")
    vm = VM.objects.filter(pk=NexusID.parse(ref)).first() if ref else None
    if vm is None:
        return
    if vm.state == State.STARTING:
        outcomes.end_vmm(vm)
        outcomes.start_failed(vm, error)
    if vm.state in AT_REST:
        with suppress(NexusError):  # then the next start makes it
            warm.restore_drive(vm)


# Stopping


def already_ended(run: Run) -> str | None:
    vm = vm_of(run)
    return f"it is {vm.state}" if vm.state in AT_REST else None


def shut_down(run: Run) -> str:
    """Ask the agent, then press the power button, then kill; says which it took."""
    vm = vm_of(run)
    driver = driver_of(vm)
    found = driver.adopt(vm_dir(vm))
    if not isinstance(found, Handle):
        return "the VMM had ended already"
    patience = settings.NEXUS.shutdown_timeout
    if not run.params.get("force"):
        with live_drives.alone_with(vm, run):  # whoever held it has made the copies
            live_drives.go_on(vm, found, "it is to shut down")  # which a paused one cannot
        if supervision.ask_to_shut_down(vm) and _ended_within(vm, patience, run):
            return "the agent shut the guest down"
        if driver.shutdown(found, timeout=patience / 3):
            return "the guest followed its power button"
    driver.kill(found)
    return "killed" if run.params.get("force") else "killed: the guest did not shut down in time"


def _ended_within(vm: VM, seconds: float, run: Run) -> bool:
    driver = driver_of(vm)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if not isinstance(driver.adopt(vm_dir(vm)), Handle):
            return True
        run.check()
        time.sleep(POLL)
    return False


def record_end(run: Run) -> str | None:
    vm = vm_of(run)
    if vm.state in AT_REST:
        return None
    found = driver_of(vm).adopt(vm_dir(vm))
    if isinstance(found, Handle):
        raise Broken(
            f"The VMM of “{vm.name}” (pid {found.pid}) cannot be ended.",
            hint="Look at it with ps; it may hang in the kernel.",
            code="vmm-hangs",
        )
    ended = found or Exit(None, None, None)
    outcomes.vmm_ended(vm, ended)
    return ended.describe()


# Creating and deleting


def drive_is_there(run: Run) -> str | None:
    return None if run.params["new_drive"] else "the drive exists"


def fill_drive(run: Run) -> str:
    """The storage of the VM's new drive, unless the start that follows makes it; when it fails,
    VM and drive are gone again."""
    drive = Drive.objects.get(pk=NexusID.parse(run.params["drive"]))
    if run.params.get("start", True):
        return warm.fill_for_start(drive, vm_of(run), run)
    return drive_services.fill(drive, run)


def create_failed(operation: Operation, error: NexusError) -> None:
    """A VM that never got its drive goes away; one that only failed to start stays."""
    drive_ref = operation.params["drive"]
    if not operation.params["new_drive"]:
        return
    drive = Drive.objects.filter(pk=NexusID.parse(drive_ref)).first()
    if drive is None or drive.state != Drive.State.CREATING:
        return
    with transaction.atomic():
        vm = VM.objects.filter(pk=NexusID.parse(operation.params["vm"])).first()
        if vm is not None:
            remove(vm)
        drive.refresh_from_db()
        drive_services.discard(drive)


def delete_snapshots(run: Run) -> str:
    """Those of the VM, with what they have of its drives."""
    vm = vm_of(run)
    snapshots = list(vm.snapshots.all())
    parts = [part.ref for snapshot in snapshots for part in snapshotting.parts_of(snapshot)]
    run.keep(snapshots=[*run.made.get("snapshots", []), *parts])
    for snapshot in snapshots:
        snapshotting.remove_row(snapshot)
    snapshotting.discard_parts(run.made["snapshots"])
    return f"{len(snapshots)} deleted"


def delete_row(run: Run) -> str | None:
    """The row, its history and its files; remembers the drives for the step after."""
    vm = VM.objects.filter(pk=NexusID.parse(run.params["vm"])).first()
    if vm is None:
        return "it is gone already"
    going = vm.attachments.filter(drive__delete_with_vm=True).select_related("drive")
    run.keep(drives=[a.drive.ref for a in going])
    remove(vm)
    return None


def remove(vm: VM) -> None:
    """The row of a VM that has no VMM, with its history and its files; drives stay."""
    for name in NAMES:  # it may have run on each
        driver_for(name).cleanup(vm_dir(vm))
    remove_vm_dir(vm)
    with transaction.atomic():
        events.append("vm.deleted", vm)
        vm.delete()


def delete_drives(run: Run) -> str:
    """Those that go with their VM; the others are free now."""
    refs = run.made.get("drives", [])
    for drive in Drive.objects.filter(pk__in=[NexusID.parse(ref) for ref in refs]):
        drive_services.discard(drive, with_snapshots=bool(run.params.get("with_snapshots")))
    return f"{len(refs)} deleted"

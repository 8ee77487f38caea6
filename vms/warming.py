"""What it takes to make a warm template, and to delete one: the lists of steps.

Its VM boots as any other does, and is seen by nobody. Where making it fails, all but the reason
is taken away again.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from django.db import transaction

from drives import services as drive_services
from guest_agent.connection import AgentConnection
from images import services as image_services
from images.models import Image, Kernel
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel, open_operations
from nexus_site.core.steps import Plan, Run, Step
from vms import checkpoints, hidden, lifecycle, outcomes, supervision, warm
from vms.choice import choose
from vms.drivers import driver_of
from vms.hypervisors.base import Handle
from vms.models import VM, VMSnapshot, WarmTemplate
from vms.paths import vm_dir
from vms.sampling import VmmUsage
from vms.services.snapshots import new_checkpoint
from vms.services.warm import is_being_made

SETTLE_SECONDS = 60.0  # for services to start; what takes longer is not waited for
QUIET_SECONDS = 30.0  # for the guest to come to rest after that
QUIET_SHARE = 0.1  # of one of the host's processors
LOOK = 0.5  # seconds between two looks
A_PROGRAM = ("/bin/sh", "-c", "exec true")
NICENESS = 10
CANCEL_SECONDS = 60.0


def make_plan(operation: Operation) -> Plan:
    return [
        Step("kernel", "Prepare kernel and initrd", lifecycle.prepare_kernel, undo=take_away),
        Step("key", "Look what it has to fit", note_key),
        Step("drive", "Make the drive", lifecycle.fill_drive),
        Step(
            "launch",
            "Launch the VMM",
            launch,
            done=lifecycle.already_launched,
            foresee=lifecycle.foresee_hypervisor,
        ),
        Step("agent", "Wait for the agent", lifecycle.wait_for_agent),
        Step("settle", "Wait until the guest has come to rest", settle),
        Step("checkpoint", "Save memory and drives", save),
        Step("end", "End the VMM", end),
        Step("ready", "Offer it to VMs", offer),
    ]


def note_key(run: Run) -> str:
    """The row of the template, by the facts of this VM: new, wanted, or failed before."""
    vm = lifecycle.vm_of(run)
    kernel = _kernel(run)
    choice = choose(vm, image_services.boot_files(kernel).vmlinux)
    facts = warm.facts(vm, warm.Fresh(kernel, choice))
    with transaction.atomic():
        template, _ = WarmTemplate.objects.select_for_update().get_or_create(
            key=warm.key_of(facts),
            defaults={"facts": facts, "image": vm.image, "kernel": kernel},
        )
        _require_to_be_made(template, vm)
        before, template.vm = template.vm, vm
        template.state, template.problem = WarmTemplate.State.MAKING, ""
        template.save(update_fields=["vm", "state", "problem"])
        run.keep(template=template.ref)
    if before is not None and before.pk != vm.pk:
        hidden.discard(before)
    return f"{choice}"


def _require_to_be_made(template: WarmTemplate, vm: VM) -> None:
    by_other = template.state == WarmTemplate.State.MAKING and template.vm not in (None, vm)
    if template.state == WarmTemplate.State.READY or (by_other and is_being_made(template)):
        raise Conflict(
            f"There is a {template} like that already ({template.get_state_display()}).",
            hint=f"To make it anew, delete that: nexusctl warm delete {template.ref}",
            code="warm-template-there",
        )


def launch(run: Run) -> str:
    """Boot it, behind everything else that the host has to do."""
    lifecycle.begin_start(run)
    note = lifecycle.launch(run)
    be_nice(_handle(lifecycle.vm_of(run)))
    return note


def be_nice(handle: Handle) -> None:
    """Let all threads of a VMM have the processors when others leave them."""
    for thread in Path(f"/proc/{handle.pid}/task").iterdir():
        with suppress(OSError):  # it has ended
            os.setpriority(os.PRIO_PROCESS, int(thread.name), NICENESS)


def settle(run: Run) -> str:
    """Until its services have started and it does next to nothing, but not for ever."""
    vm, began = lifecycle.vm_of(run), time.monotonic()
    while time.monotonic() - began < SETTLE_SECONDS and not _has_settled(vm):
        _look_again(run)
    with suppress(NexusError):  # there may be no shell
        supervision.with_agent(vm, _run_a_program)
    settled, since = time.monotonic(), VmmUsage.of(_handle(vm))
    while time.monotonic() - settled < QUIET_SECONDS:
        _look_again(run)
        now = VmmUsage.of(_handle(vm))
        if now and since and now.cpu_seconds - since.cpu_seconds < QUIET_SHARE * LOOK:
            return f"quiet after {time.monotonic() - began:.0f} s"
        since = now
    return f"still at work after {time.monotonic() - began:.0f} s"


async def _run_a_program(agent: AgentConnection) -> None:
    """What it takes to run one is in the guest's memory from then on."""
    await agent.execute(A_PROGRAM, on_output=lambda *_: None)


def _has_settled(vm: VM) -> bool:
    vm.refresh_from_db(fields=["agent"])
    return vm.agent.get("boot", {}).get("settled") is not None


def _look_again(run: Run) -> None:
    run.check()
    time.sleep(LOOK)


def save(run: Run) -> str:
    """The checkpoint; what an interrupted attempt began is made anew."""
    vm = lifecycle.vm_of(run)
    snapshot = vm.snapshots.first()
    if snapshot is None:
        with transaction.atomic():
            snapshot = new_checkpoint(vm, vm.name)
    if snapshot.state == VMSnapshot.State.READY:
        return f"{snapshot.name} is there"
    return checkpoints.take(snapshot, run)


def end(run: Run) -> None:
    """What is saved is all that is needed of the VM and its drive, besides their rows."""
    lifecycle.kill(run)
    for attachment in lifecycle.vm_of(run).attachments.select_related("drive"):
        drive_services.drop_storage(attachment.drive)


def offer(run: Run) -> str:
    vm = lifecycle.vm_of(run)
    checkpoint = vm.snapshots.get()
    for part in checkpoint.parts.select_related("snapshot__drive__image"):
        drive_services.note_changes(part.snapshot)
    with transaction.atomic():
        template = WarmTemplate.objects.select_for_update().get(vm=vm)
        template.checkpoint = checkpoint
        template.state = WarmTemplate.State.READY
        template.save(update_fields=["checkpoint", "state"])
        events.append("warm_template.ready", template, vm=vm.ref)
    return str(template)


def take_away(run: Run) -> None:
    """The VM with all that is of it; also what an interrupted attempt to do so has left."""
    vm = VM.objects.filter(pk=NexusID.parse(run.params["vm"])).first()
    if vm is not None:
        hidden.discard(vm)


def make_failed(operation: Operation, error: NexusError) -> None:
    """It says why it is not there, and is not tried again until somebody asks for that; one that
    was cancelled is forgotten."""
    ref = operation.context.get("template") or operation.params["template"]
    if not ref:  # it was asked for, and did not come as far as its key
        return
    making = WarmTemplate.objects.filter(vm=None, state=WarmTemplate.State.MAKING)
    template = making.filter(pk=NexusID.parse(ref)).first()
    if template is None:  # another operation's
        return
    if error.code == "cancelled":
        template.delete()
    else:
        warm.fail(template, error)


# Deleting


def delete_plan(operation: Operation) -> Plan:
    going = operation.params["going"]
    if not going:
        return [Step("none", "Delete what is of no use", _nothing, done=_nothing)]
    return [
        Step(f"delete-{number}", f"Delete the {one['title']}", partial(_delete_one, one))
        for number, one in enumerate(going, 1)
    ]


def _delete_one(one: dict[str, Any], run: Run) -> str:
    return delete(one["template"], keeps_row=one["keeps_row"])


def _nothing(run: Run) -> str:
    return "there is nothing to delete"


def delete(ref: str, *, keeps_row: bool = False) -> str:
    """One with its storage; ``keeps_row``: it goes on to say that, and why, it is of no use."""
    template = WarmTemplate.objects.filter(pk=NexusID.parse(ref)).first()
    if template is None:
        return "it is gone already"
    if template.vm is not None:
        hidden.discard(template.vm)
    if not keeps_row:
        with transaction.atomic():
            events.append("warm_template.deleted", template)
            template.delete()
    return "deleted"


class ImageCopies:
    """Provides ``images.services.derived``."""

    def drives(self, image: Image) -> list[NexusID]:
        rows = VM.objects.filter(purpose=VM.Purpose.WARM, attachments__drive__image=image)
        return list(rows.values_list("attachments__drive", flat=True))

    def discard(self, image: Image, run: Run) -> str:
        for vm in VM.objects.filter(purpose=VM.Purpose.WARM, attachments__drive__image=image):
            _stop_making(vm, run)
        templates = list(image.warm_templates.all())
        for template in templates:
            delete(template.ref)
        for vm in VM.objects.filter(purpose=VM.Purpose.WARM, attachments__drive__image=image):
            hidden.discard(vm)
        return f"{len(templates)} deleted"


def _stop_making(vm: VM, run: Run) -> None:
    """Cancel what works on the VM, and wait for those that do so now."""
    for operation in open_operations(vm):
        cancel(operation)
    until = time.monotonic() + CANCEL_SECONDS
    while open_operations(vm).filter(state=Operation.State.RUNNING).exists():
        if time.monotonic() > until:
            raise Conflict(
                f"The VM “{vm.name}”, which boots for a warm template, does not end.",
                hint="Try again when its operation has ended: nexusctl operation list",
                code="warm-template-busy",
            )
        _look_again(run)


def _kernel(run: Run) -> Kernel:
    return Kernel.objects.get(pk=NexusID.parse(run.made["kernel"]))


def _handle(vm: VM) -> Handle:
    found = driver_of(vm).adopt(vm_dir(vm))
    if not isinstance(found, Handle):
        vm.refresh_from_db(fields=["state"])
        raise outcomes.not_ready(vm)
    return found

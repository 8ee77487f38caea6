"""What it takes to fork a VM: the list of steps.

The checkpoint is the one moment that all forks go on from. Their drives are copies of its drives,
and its memory is mapped by each of them, so that what none of them changes is there once.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any

from django.db import connection, transaction
from django.utils import timezone

from drives import services as drive_services
from drives.models import Drive
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NexusError
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import cancel, go_on_with_child, open_operation
from nexus_site.core.steps import Plan, Run, Step
from vms import checkpoints, snapshotting, supervision
from vms.capacity import MIB, require_room
from vms.lifecycle import remove, start_failed
from vms.models import VM
from vms.services.forks import new_forks
from vms.services.rules import wish
from vms.states import Desired, State
from vms.transitions import move

AT_ONCE = 2 * (os.cpu_count() or 1)  # starts: half of each is waiting
CHANGED = 0.25  # of a fork's memory: what it is expected to change, and have to itself
LOOK = 0.5  # seconds between two looks at whether the operation is still wanted

Fork = dict[str, Any]


def plan(operation: Operation) -> Plan:
    takes = operation.params["takes"]
    drop_checkpoint = snapshotting.drop if takes else None
    steps = [Step("room", "Look for room", find_room, undo=drop_checkpoint, foresee=find_room)]
    steps += [checkpoints.step()] if takes else []
    steps += [
        Step("vms", "Make the VMs", make, done=are_made, undo=drop),
        Step("drives", "Copy the drives", copy_drives, keeps=True),
    ]
    if operation.params["start"]:
        steps.append(Step("start", "Let them go on", start_all))
    return steps


def failed(operation: Operation, error: NexusError) -> None:
    """Starts that nobody goes on with have failed too."""
    for child in Operation.objects.filter(parent=operation, ended_at=None):
        start_failed(child, error)
        Operation.objects.filter(pk=child.pk).update(
            state=Operation.State.FAILED, ended_at=timezone.now(), error=error.record()
        )


def find_room(run: Run) -> str:
    """What the checkpoint and the forks will take is free now; raises ``Conflict`` else."""
    checkpoint, count = snapshotting.find_ready(run), run.params["count"]
    memory = checkpoint.mem_size_mib * MIB
    share = checkpoint.memory_bytes or memory  # what is there once, for all of them
    forks = share + count * CHANGED * memory if run.params["start"] else 0
    takes = run.params["takes"]
    parts = snapshotting.parts_of(checkpoint)
    drives = drive_services.copy_bytes([part.drive if takes else part for part in parts])
    disk = drives * (count + takes) + takes * memory
    require_room(run.operation.title, memory_bytes=forks, disk_bytes=disk)
    return f"{forks / MIB:.0f} MiB of memory, {disk / MIB:.0f} MiB on the disk"


def are_made(run: Run) -> str | None:
    return "they are there" if run.made.get("forks") else None


def make(run: Run) -> str:
    """The rows of the forks and their drives; ``forks`` names them in the result."""
    with transaction.atomic():
        checkpoint = snapshotting.find_ready(run)
        forks = new_forks(checkpoint, run.params["count"], run.params["name"])
        run.keep(forks=[{"vm": fork.ref, "name": fork.name, "state": fork.state} for fork in forks])
    return ", ".join(fork.name for fork in forks)


def drop(run: Run) -> None:
    """None of them is left, nor what an interrupted attempt has copied."""
    for fork in run.made.get("forks", []):
        vm = VM.objects.filter(pk=NexusID.parse(fork["vm"])).first()
        if vm is not None:
            drives = _drives(vm)
            remove(vm)
            for drive in drives:
                drive_services.discard(drive)


def copy_drives(run: Run) -> str:
    drives = [drive for fork in run.made["forks"] for drive in _drives(_vm(fork))]
    for done, drive in enumerate(drives):
        run.progress(done / len(drives), drive.name)
        drive_services.fill(drive, run)
    return f"{len(drives)} drive{'s' if len(drives) > 1 else ''}"


def start_all(run: Run) -> str:
    """Start the forks, some at once; each tells in ``forks`` how it came out.

    Raises ``Broken`` only if none could be started. All of them stay, to be started again.
    """
    children = {fork["vm"]: _child(run, fork) for fork in run.made["forks"]}
    with events.acting(run.operation.actor, run.operation):
        errors = dict(_outcomes(run, children))
    forks = [_result(fork, errors[fork["vm"]]) for fork in run.made["forks"]]
    run.keep(forks=forks)
    supervision.wake()  # a checkpoint that nobody needs any more goes
    failed = [fork for fork in forks if "error" in fork]
    if len(failed) == len(forks):
        raise _all_failed(failed)
    words = "; ".join(f"{fork['name']}: {fork['error']['text']}" for fork in failed)
    return f"{len(forks) - len(failed)} of {len(forks)}" + (f", not {words}" if failed else "")


def _child(run: Run, fork: Fork) -> Operation:
    """The start of one fork; after an interruption the one that was opened before."""
    vm = _vm(fork)
    rows = Operation.objects.filter(parent=run.operation, kind="vm.start", subject_id=vm.pk)
    child = rows.first()
    if child is not None:
        return child
    with transaction.atomic():
        params = {"vm": vm.ref, "cold": False}
        child = open_operation(
            "vm.start", f"Start VM {vm.name}", subject=vm, params=params, parent=run.operation
        )
        wish(vm, Desired.RUNNING)
        move(vm, State.STARTING, "forked")
    return child


def _outcomes(run: Run, children: dict[str, Operation]) -> Iterator[tuple[str, NexusError | None]]:
    """How each start ended: with an error, or none. Cancels them when the fork is cancelled."""
    if min(len(children), AT_ONCE) == 1:
        for ref, child in children.items():
            run.check()
            yield ref, _start(run.operation, child)
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fork") as pool:
        starts = {
            pool.submit(_start_in_thread, run.operation, child): ref
            for ref, child in children.items()
        }
        waiting: set[Future[NexusError | None]] = set(starts)
        try:
            while waiting:
                ended, waiting = wait(waiting, LOOK, FIRST_COMPLETED)
                run.progress(1 - len(waiting) / len(starts))
                for start in ended:
                    yield starts[start], start.result()
        except BaseException:
            for child in children.values():
                with suppress(Conflict):  # it has ended
                    child.refresh_from_db()
                    cancel(child)
            raise


def _start_in_thread(parent: Operation, child: Operation) -> NexusError | None:
    try:
        return _start(parent, child)
    finally:
        connection.close()


def _start(parent: Operation, child: Operation) -> NexusError | None:
    try:
        go_on_with_child(parent, child)
    except NexusError as error:
        return error
    return None


def _result(fork: Fork, error: NexusError | None) -> Fork:
    state = VM.objects.filter(pk=NexusID.parse(fork["vm"])).values_list("state", flat=True).first()
    known = {"vm": fork["vm"], "name": fork["name"], "state": state or "deleted"}
    return known | {"error": error.record()} if error else known


def _all_failed(forks: list[Fork]) -> Broken:
    first = forks[0]["error"]
    if len(forks) == 1:
        text = f"The fork “{forks[0]['name']}” could not be started: {first['text']}"
    else:
        text = f"None of the {len(forks)} forks could be started. The first: {first['text']}"
    detail = "\n".join(f"{fork['name']}: {fork['error']['text']}" for fork in forks)
    return Broken(text, detail=detail, hint=first.get("hint", ""), code="forks-failed")


def _vm(fork: Fork) -> VM:
    vm = VM.objects.filter(pk=NexusID.parse(fork["vm"])).first()
    if vm is None:
        raise Conflict(f"The VM “{fork['name']}” has been deleted meanwhile.", code="vm-gone")
    return vm


def _drives(vm: VM) -> list[Drive]:
    rows = Drive.objects.select_related("source_snapshot")
    return list(rows.filter(attachment__vm=vm).order_by("-attachment__is_root", "created_at"))

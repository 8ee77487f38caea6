"""What the worker reads and writes down while it provisions a guest."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any
from uuid import UUID, uuid5

from django.db import transaction
from django.utils import timezone

from guest_agent.chunks import ExitStatus
from guest_agent.messages import Configuration, Network
from nexus_site.core import events
from nexus_site.core.errors import NexusError, from_record
from nexus_site.core.ids import NexusID
from nexus_site.core.operations import open_operation
from vms import outcomes, supervision
from vms.models import VM, Boot, Memory, ProvisionedFile, Provisioning
from vms.services.provisioning import content_of, secret_env
from vms.states import ALIVE, State
from vms.transitions import try_move

Phase = Provisioning.Phase
WORKING = (Phase.FILES, Phase.SERVICES, Phase.SCRIPT)
COPIED = (Memory.CHECKPOINT, Memory.WARM)  # other guests may go on from the same memory
BOOTS = UUID("8f1d4f0e-6c2b-4d0e-9a55-5b1a4d3f7c21")  # in which starts have their boot IDs
NOBODY = "vm"  # behind a warm template; files with a longer name in its place are soon written
MASKED_FILE = 4096  # bytes; no larger secret file is looked for in a log


@dataclass(frozen=True)
class Work:
    """What one boot of a guest is to be given. No repr has the values: they are the guest's."""

    row: NexusID
    reason: str  # for the move to ready
    warning: str
    resumes: bool  # the script of this boot was begun by a worker that has ended
    drive: NexusID | None
    hosts: tuple[str, ...]
    files: tuple[NexusID, ...]
    env: dict[str, str] = field(repr=False)
    script: str = field(repr=False)  # empty: there is none, or it has run on this drive
    secrets: tuple[bytes, ...] = field(repr=False)  # what its log must not show


@dataclass(frozen=True)
class Who:
    """What every guest is told at every hello: who it is.

    ``resumed``: it goes on from a saved memory, so its boot's times are of another day.
    """

    configuration: Configuration
    resumed: bool


def who(vm: VM) -> Who | None:
    """Who the guest is that runs for ``vm``; None while its start is not recorded yet."""
    row = VM.objects.get(pk=vm.pk)
    boot = Boot.objects.filter(vm=vm, ended_at=None).first()
    if boot is not None and not boot.handle:
        return None
    root = row.attachments.filter(is_root=True).select_related("drive").first()
    dns = Provisioning.objects.filter(vm=vm).values_list("dns", flat=True).first()
    network = Network(mac=row.mac)
    copied = boot is not None and boot.resumed_from in COPIED
    configuration = Configuration(
        hostname=NOBODY if row.purpose == VM.Purpose.WARM else row.name,
        network=replace(network, dns=tuple(dns)) if dns else network,
        identity=root.drive.ref if root else None,
        boot_id=str(uuid5(BOOTS, boot.ref)) if boot is not None and copied else None,
    )
    return Who(configuration, boot is not None and bool(boot.resumed_from))


def phase_of(vm: VM) -> str:
    """What provisioning does now, in words; empty while it does nothing."""
    row = Provisioning.objects.filter(vm=vm, phase__in=WORKING, vm__state__in=ALIVE)
    phase = row.values_list("phase", flat=True).first()
    return str(Phase(phase).label) if phase else ""


def failure_of(vm: VM) -> NexusError | None:
    """Why a VM that is being stopped, or was, has failed; None where that was no provisioning."""
    last = vm.history.last()
    failure = last.detail.get("failure") if last else None
    if failure is None and last and last.to_state == State.FAILED:
        failure = last.detail if last.detail.get("code") == "provisioning" else None
    return from_record(failure) if failure else None


@transaction.atomic
def begin(vm: VM, hello: dict[str, Any], at: datetime, warning: str) -> Work | None:
    """The agent has called: what there is to do. Where that is nothing the VM is ``ready``."""
    reason = outcomes.note_hello(vm, hello, at)
    row = Provisioning.objects.filter(vm=vm).first()
    if row is None or (row.boot_id == hello["boot_id"] and row.phase not in WORKING):
        outcomes.ready(vm, reason, warning)
        return None
    resumes = row.boot_id == hello["boot_id"] and row.phase == Phase.SCRIPT
    if Boot.objects.filter(vm=vm, ended_at=None, resumed_from=Memory.CHECKPOINT).exists():
        return _begin_fork(vm, row, hello["boot_id"], reason, warning)
    Provisioning.objects.filter(pk=row.pk).update(boot_id=hello["boot_id"], problem="")
    if not resumes:
        enter(vm, row.pk, Phase.FILES)
    try:
        return _work(vm, row, reason, warning, resumes)
    except NexusError as error:
        _end(vm, row, error, reason, warning)
        return None


def _begin_fork(vm: VM, row: Provisioning, boot_id: str, reason: str, warning: str) -> Work | None:
    """The guest goes on from a checkpoint: it has its files, and its script has run in it before
    it became this one. Its settings may be others by now."""
    script_drive = row.script_drive if row.boot_id else _root_drive(vm)
    Provisioning.objects.filter(pk=row.pk).update(
        boot_id=boot_id, problem="", script_drive=script_drive
    )
    enter(vm, row.pk, Phase.FILES)
    try:
        work = _work(vm, row, reason, warning, resumes=False)
    except NexusError as error:
        _end(vm, row, error, reason, warning)
        return None
    return replace(work, files=(), script="")


def _root_drive(vm: VM) -> NexusID | None:
    root = vm.attachments.filter(is_root=True).first()
    return root.drive_id if root else None


def _work(vm: VM, row: Provisioning, reason: str, warning: str, resumes: bool) -> Work:
    drive = _root_drive(vm)
    secret = secret_env(row) if row.secret_env else {}
    small = row.files.filter(secret=True, size__lte=MASKED_FILE)
    masked = [value.encode() for value in secret.values()] + [content_of(file) for file in small]
    return Work(
        row=row.id,
        reason=reason,
        warning=warning,
        resumes=resumes,
        drive=drive,
        hosts=tuple(f"{address} {name}" for name, address in row.hosts.items()),
        files=tuple(row.files.values_list("pk", flat=True)),
        env=row.env | secret,
        script=row.script if row.script_drive != drive else "",
        secrets=tuple(masked),
    )


@transaction.atomic
def enter(vm: VM, row: NexusID, phase: Provisioning.Phase) -> None:
    """The next phase has begun."""
    if Provisioning.objects.filter(pk=row).update(phase=phase):
        events.append("vm.provisioning", vm, phase=phase.value)
        transaction.on_commit(supervision.announce_move)


def file_to_write(pk: NexusID) -> tuple[ProvisionedFile, bytes] | None:
    """A file with its bytes; None where it was taken away meanwhile."""
    file = ProvisionedFile.objects.filter(pk=pk).first()
    return (file, content_of(file)) if file else None


def keep_log(row: NexusID, text: str) -> None:
    """The script's output so far."""
    Provisioning.objects.filter(pk=row).update(script_log=text)


def script_ended(work: Work, status: ExitStatus, text: str) -> None:
    """It has run on its drive, unless it failed where that is not to be overlooked: then it runs
    again at the next start, as does one that was changed meanwhile."""
    rows = Provisioning.objects.filter(pk=work.row)
    rows.update(
        script_log=text,
        script_exit={"code": status.code, "signal": status.signal, "timed_out": status.timed_out},
        script_ended_at=timezone.now(),
    )
    if status.code != 0:
        rows = rows.filter(on_failure=Provisioning.OnFailure.WARN)
    rows.filter(script=work.script).update(script_drive=work.drive)


@transaction.atomic
def end(vm: VM, work: Work, problem: NexusError | None) -> None:
    """All is done, or ``problem`` has ended it: the VM is ready, or has failed and is stopped."""
    row = Provisioning.objects.filter(pk=work.row).first()
    if row is None:  # cleared meanwhile
        outcomes.ready(vm, work.reason, work.warning)
    else:
        _end(vm, row, problem, work.reason, work.warning)


def _end(vm: VM, row: Provisioning, problem: NexusError | None, reason: str, warning: str) -> None:
    """An agent that knows nothing of it is no reason to fail: so it was before it was wished."""
    text = f"{problem.text} {problem.hint}".strip() if problem else ""
    Provisioning.objects.filter(pk=row.pk).update(problem=text)
    enter(vm, row.pk, Phase.FAILED if problem else Phase.DONE)
    strict = row.on_failure == Provisioning.OnFailure.FAIL
    if problem and strict and problem.code != "agent-outdated":
        _fail(vm, problem)
        return
    told = f"Provisioning failed: {problem.text}" if problem else ""
    more = {"detail": problem.detail} if problem and problem.detail else {}
    outcomes.ready(vm, reason, " ".join(filter(None, (warning, told))), **more)


def _fail(vm: VM, problem: NexusError) -> None:
    """The VM is shut down; once its VMM has ended it is ``failed`` (``outcomes.vmm_ended``)."""
    failure = problem.record() | {
        "kind": "Broken",
        "code": "provisioning",
        "text": f"Provisioning failed: {problem.text}",
        "hint": problem.hint or f"Its log: nexusctl vm provision-log {vm.name}",
    }
    if try_move(vm, State.STOPPING, failure["text"], detail={"failure": failure}, only_from=ALIVE):
        open_operation(
            "vm.stop",
            f"Stop VM {vm.name}, which could not be provisioned",
            subject=vm,
            params={"vm": vm.ref, "force": False},
        )


def masked_words(secrets: Iterable[bytes]) -> list[bytes]:
    """The lines of secret values that are long enough to be told from other words, longest
    first."""
    lines = {line.strip() for value in secrets for line in value.splitlines()}
    return sorted((line for line in lines if len(line) >= 6), key=len, reverse=True)

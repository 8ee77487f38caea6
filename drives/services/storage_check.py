"""Whether database and disk agree, and making them agree again when told to."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from django.db import models, transaction

from drives.live import live
from drives.models import Drive, Snapshot
from drives.services.drives import discard
from drives.services.places import file_of, storage
from drives.services.rows import MIB, settle
from drives.services.snapshots import discard_snapshot
from drives.storage import Inventory
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NexusError, as_nexus_error
from nexus_site.core.ids import NexusID, is_id
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation, open_operations
from nexus_site.core.steps import Plan, Run, Step

Kind = Literal[
    "orphan-drive",
    "orphan-snapshot",
    "missing-drive",
    "missing-snapshot",
    "wrong-size",
    "stuck",
    "leftover",
]
Row = Drive | Snapshot
_OPEN = (Operation.State.QUEUED, Operation.State.RUNNING)


@dataclass(frozen=True)
class Problem:
    """Something that database and disk do not agree about."""

    kind: Kind
    subject: str  # the ID of a drive or a snapshot, or the path of a leftover
    name: str  # for people
    text: str
    repair: str  # what ``repair_storage`` does about it


@dataclass(frozen=True)
class Report:
    """What a check has found, and what it has looked at."""

    problems: list[Problem]
    drives: int
    snapshots: int


def check_storage() -> Report:
    """Compare database and disk, both ways; changes nothing.

    What an open operation works on is left out. Things change while one looks: only what two
    looks find is a problem.
    """
    found, disk = _look()
    if found:
        again, disk = _look()
        found = [problem for problem in found if problem in again]
    return Report(found, len(disk.drives), len(disk.snapshots))


def _look() -> tuple[list[Problem], Inventory]:
    """One look. The order matters: files, then operations, then rows, as ``_busy`` says."""
    disk = storage().inventory()
    sizes = {ref: _size(storage().drive_path(ref)) for ref in disk.drives}
    snapshot_sizes = {ref: _size(storage().snapshot_path(ref)) for ref in disk.snapshots}
    busy = _busy()
    drives = {row.ref: row for row in Drive.objects.select_related("attachment").order_by("name")}
    snapshots = {row.ref: row for row in Snapshot.objects.select_related("drive__attachment")}
    found = [
        *_differences(drives, sizes, busy),
        *_differences(snapshots, snapshot_sizes, busy),
        *_orphans("drive", disk.drives - drives.keys(), busy),
        *_orphans("snapshot", disk.snapshots - snapshots.keys(), busy),
        *map(_leftover, disk.leftovers),
        *map(_leftover, live().forgotten_memories()),
    ]
    return found, disk


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _busy() -> set[str]:
    """The IDs that operations which have not ended speak of: what they are about, what they were
    asked for, what they have made.

    An operation is opened in the transaction that makes or marks its rows. So a row that was
    read after this and is half-way without an operation has lost its own, or gets one now.
    """
    rows = Operation.objects.filter(state__in=_OPEN).values("subject_id", "params", "context")
    return {ref for row in rows for ref in _refs([*row.values()])}


def _refs(value: Any) -> Iterator[str]:
    """All IDs in what JSON can hold."""
    if isinstance(value, NexusID):
        yield str(value)
    elif isinstance(value, str) and is_id(value):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from _refs(part)


def _is_busy(row: Row, busy: set[str]) -> bool:
    drive = row if isinstance(row, Drive) else row.drive
    attachment = getattr(drive, "attachment", None)
    vm = {str(attachment.vm_id)} if attachment is not None else set()
    return not busy.isdisjoint({row.ref, drive.ref} | vm)


def _differences(
    rows: dict[str, Any], sizes: dict[str, int | None], busy: set[str]
) -> Iterator[Problem]:
    for ref, row in rows.items():
        if not _is_busy(row, busy):
            problem = _difference(row, sizes.get(ref))
            if problem is not None:
                yield problem


def _difference(row: Row, size_bytes: int | None) -> Problem | None:
    """What is wrong with a row whose file has that size, or is not there."""
    kind = "drive" if isinstance(row, Drive) else "snapshot"
    the = f"The {kind} “{row.name}”"

    def problem(name: Kind, text: str, repair: str) -> Problem:
        return Problem(name, row.ref, row.name, f"{the} {text}", repair)

    if row.state in (row.State.CREATING, row.State.DELETING):
        drops = _drops(row)
        repair = "Delete it" if drops else "Mark it as what its file is: ready, or missing"
        return problem("stuck", f"is {row.state}, and nothing works on it.", repair)
    missing: Kind = "missing-drive" if kind == "drive" else "missing-snapshot"
    if row.state == row.State.MISSING:
        there = size_bytes is not None
        text = "is marked as missing, but its file is there again."
        return problem(missing, text, "Mark it as ready") if there else None
    if size_bytes is None:
        return problem(missing, "has lost its file.", "Mark it as missing")
    if size_bytes != row.size_bytes:
        text = f"should have {row.size_bytes} bytes; its file has {size_bytes}."
        return problem("wrong-size", text, f"Note {size_bytes / MIB:.4g} MiB as its size")
    return None


def _drops(row: Row) -> bool:
    """Half-made and in no VM, nor in a VM's snapshot: of no use to anybody."""
    used = hasattr(row, "attachment") or hasattr(row, "part")
    return row.state == row.State.CREATING and not used


def _orphans(kind: str, refs: frozenset[str] | set[str], busy: set[str]) -> Iterator[Problem]:
    name: Kind = "orphan-drive" if kind == "drive" else "orphan-snapshot"
    for ref in sorted(refs - busy):
        text = f"The file of a {kind} {ref} belongs to no {kind} that Nexus knows."
        yield Problem(name, ref, ref, text, "Delete the file")


def _leftover(path: Path) -> Problem:
    text = f"{path} was left over by something that did not end well."
    return Problem("leftover", str(path), path.name, text, "Delete it")


# Repairing


@transaction.atomic
def repair_storage() -> Operation:
    """Do what ``check_storage`` proposes for each problem that is still there then."""
    require_storage_idle()
    return open_operation("storage.repair", "Repair the storage")


def require_storage_idle() -> None:
    """Raise ``Conflict`` while another operation works on the storage as a whole."""
    other = open_operations().filter(kind__startswith="storage.").first()
    if other is not None:
        raise Conflict(
            f"The storage is busy: {other.title} ({other.state}).",
            hint=f"Wait for it: nexusctl operation wait {other.ref}",
            code="storage-busy",
            extra={"operation": other.ref},
        )


def repair_plan(operation: Operation) -> Plan:
    return [Step("repair", "Repair what the check finds", _repair, done=_is_well)]


def _is_well(run: Run) -> str | None:
    return None if check_storage().problems else "nothing is wrong"


def _repair(run: Run) -> str:
    """One that cannot be repaired does not keep the others from being."""
    problems = check_storage().problems
    failures: list[tuple[Problem, NexusError]] = []
    for number, problem in enumerate(problems):
        run.progress(number / len(problems))
        try:
            _REPAIRS[problem.kind](problem)
        except Exception as failure:
            failures.append((problem, as_nexus_error(failure)))
    repaired = len(problems) - len(failures)
    with transaction.atomic():
        run.keep(repaired=repaired)
        events.append("storage.changed", run.operation, repaired=repaired)
    if failures:
        raise Broken(
            f"{len(failures)} of {len(problems)} problems could not be repaired.",
            detail="\n".join(f"{problem.text} {error.text}" for problem, error in failures),
            hint="See what is left: nexusctl storage check",
            code="not-repaired",
        )
    return f"{repaired} repaired"


def _delete_orphan(problem: Problem) -> None:
    storage().delete(problem.subject)


def _delete_orphan_snapshot(problem: Problem) -> None:
    storage().delete_snapshot(problem.subject)


def _delete_leftover(problem: Problem) -> None:
    path = Path(problem.subject)
    if path in live().forgotten_memories():
        shutil.rmtree(path)
    else:
        storage().remove(path)


def _end_stuck(problem: Problem) -> None:
    row = _row(problem)
    if row is None:
        return
    if not _drops(row):
        settle(row)
    elif isinstance(row, Drive):
        discard(row)
    else:
        discard_snapshot(row)


def _note_missing(problem: Problem) -> None:
    row = _row(problem)
    if row is not None and row.state in (row.State.READY, row.State.MISSING):
        settle(row)


@transaction.atomic
def _note_size(problem: Problem) -> None:
    row = _row(problem)
    if row is None:
        return
    before, row.size_bytes = row.size_bytes, file_of(row).stat().st_size
    row.save(update_fields=["size_bytes"])
    kind = row._meta.model_name
    events.append(f"{kind}.resized", row, size_bytes=row.size_bytes, before=before)


_REPAIRS: dict[Kind, Callable[[Problem], None]] = {
    "orphan-drive": _delete_orphan,
    "orphan-snapshot": _delete_orphan_snapshot,
    "missing-drive": _note_missing,
    "missing-snapshot": _note_missing,
    "wrong-size": _note_size,
    "stuck": _end_stuck,
    "leftover": _delete_leftover,
}


def _row(problem: Problem) -> Row | None:
    """The row that a problem is about; IDs are unique beyond their kind."""
    of: tuple[type[models.Model], ...] = (Drive, Snapshot)
    key = NexusID.parse(problem.subject)
    found = (kind._default_manager.filter(pk=key).first() for kind in of)
    return next((row for row in found if isinstance(row, Drive | Snapshot)), None)

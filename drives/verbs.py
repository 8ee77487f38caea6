"""Which verbs drives and snapshots take now, and why not the others: for buttons that explain
themselves. The services have the last word; this only spares people a refusal.
"""

from __future__ import annotations

from drives.live import live
from drives.models import Drive, Snapshot
from nexus_site.core.errors import NexusError


def why_not(drive: Drive, verb: str) -> str:
    """Why ``verb`` (use, rest, delete) cannot be done now; empty when it can.

    ``use`` is all that needs its storage: snapshots, clones. ``rest`` is what also needs that
    nothing writes to it: another size, export.
    """
    attachment = getattr(drive, "attachment", None)
    if verb == "delete":
        if attachment is not None:
            return f"It is attached to {attachment.vm.name}; detach it first."
        busy = drive.state in (Drive.State.CREATING, Drive.State.DELETING)
        return f"It is {drive.state}." if busy else ""
    if drive.state != Drive.State.READY:
        return f"It is {drive.state}."
    if verb == "rest" and attachment is not None:
        return _why_not_at_rest(drive)
    return ""


def why_not_snapshot(snapshot: Snapshot, verb: str) -> str:
    """The same for a snapshot: ``use`` or ``delete``."""
    if verb == "delete":
        part = getattr(snapshot, "part", None)
        if part is not None:
            return f"It is part of the VM snapshot {part.vm_snapshot.name}; delete that."
        busy = snapshot.state in (Snapshot.State.CREATING, Snapshot.State.DELETING)
        return f"It is {snapshot.state}." if busy else ""
    return "" if snapshot.state == Snapshot.State.READY else f"It is {snapshot.state}."


def _why_not_at_rest(drive: Drive) -> str:
    try:
        live().require_rest(drive, "do without it")
    except NexusError as error:
        return error.text if error.code != "vm-runs" else "Its VM runs; stop it first."
    return ""

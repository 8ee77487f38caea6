"""What forbids a change to a drive just now."""

from __future__ import annotations

from django.db.models import Q

from drives.models import Drive, Snapshot
from nexus_site.core.errors import Broken, Conflict
from nexus_site.core.ids import check_name
from nexus_site.core.operations import open_operations


def require_idle(drive: Drive) -> None:
    """Raise ``Conflict`` (``drive-busy``) while an operation works on the drive itself."""
    other = open_operations(drive).first()
    if other is not None:
        raise Conflict(
            f"The drive “{drive.name}” is busy: {other.title} ({other.state}).",
            hint=f"Wait for it: nexusctl operation wait {other.ref}",
            code="drive-busy",
            extra={"operation": other.ref},
        )


def require_free(drive: Drive) -> None:
    """The same, and while another drive is being made of it or of a snapshot of it.

    Whoever writes to a drive, or lets a VM write to it, asks this first.
    """
    require_idle(drive)
    of_it = Q(source_drive=drive, origin=Drive.Origin.DRIVE) | Q(source_snapshot__drive=drive)
    _require_no_clone_under_way(f"The drive “{drive.name}”", of_it)


def require_unused(snapshot: Snapshot) -> None:
    """Raise ``Conflict`` (``drive-busy``) while a drive is being made of the snapshot."""
    _require_no_clone_under_way(f"The snapshot “{snapshot.name}”", Q(source_snapshot=snapshot))


def _require_no_clone_under_way(who: str, of_it: Q) -> None:
    clone = Drive.objects.filter(of_it, state=Drive.State.CREATING).first()
    if clone is not None:
        raise Conflict(
            f"{who} is busy: the drive “{clone.name}” is being made of it.",
            hint="Try again when that drive is ready.",
            code="drive-busy",
            extra={"drive": clone.ref},
        )


def require_ready(row: Drive | Snapshot) -> None:
    """Raise unless the contents are there as far as Nexus knows."""
    kind = row._meta.model_name
    if row.state == row.State.MISSING:
        raise Broken(
            f"The file of the {kind} “{row.name}” is missing.",
            hint=f"Restore it from a backup, or delete the {kind}.",
            code=f"{kind}-missing",
        )
    if row.state != row.State.READY:
        raise Conflict(f"The {kind} “{row.name}” is {row.state}.", code=f"{kind}-busy")


def require_detached(drive: Drive) -> None:
    """Raise ``Conflict`` that names the VM which the drive is attached to."""
    attachment = getattr(drive, "attachment", None)
    if attachment is not None:
        raise Conflict(
            f"The drive “{drive.name}” is attached to the VM “{attachment.vm.name}”.",
            hint=f"Detach it first: nexusctl drive detach {drive.name}",
            code="drive-attached",
            extra={"vm": attachment.vm.ref},
        )


def require_free_name(model: type[Drive] | type[Snapshot], name: str) -> None:
    """Raise ``Invalid`` or ``Conflict`` unless ``name`` may be given to another row."""
    check_name(name)
    if model._default_manager.filter(name=name).exists():
        raise Conflict(
            f"There is a {model._meta.model_name} “{name}” already.",
            hint="Choose another name, or leave it out to get one.",
            code="name-taken",
        )

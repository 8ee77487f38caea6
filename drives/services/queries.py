"""Querysets with all that a list or a page shows, in a constant number of queries."""

from __future__ import annotations

from django.db.models import Prefetch, Q, QuerySet

from drives.models import Drive, Snapshot

#: VMs with another purpose are Nexus's own, and so are their drives.
SOMEBODYS = "use"


def all_drives() -> QuerySet[Drive]:
    """Drives with what they were made of and, through what is attached, their VMs."""
    return Drive.objects.select_related(
        "image", "attachment__vm", "source_drive", "source_snapshot__drive", "head"
    )


def drive_list() -> QuerySet[Drive]:
    """The same, without those of VMs that nobody sees."""
    return all_drives().filter(Q(attachment=None) | Q(attachment__vm__purpose=SOMEBODYS))


def drive_detail() -> QuerySet[Drive]:
    """Drives with their snapshots too, in the order of time."""
    return drive_list().prefetch_related(
        Prefetch("snapshots", snapshot_list().order_by("created_at"))
    )


def snapshot_list() -> QuerySet[Snapshot]:
    """Snapshots with their drives and the VM snapshots that they are parts of; without those of
    VMs that nobody sees."""
    return all_snapshots().filter(Q(part=None) | Q(part__vm_snapshot__vm__purpose=SOMEBODYS))


def all_snapshots() -> QuerySet[Snapshot]:
    """The same with those."""
    return Snapshot.objects.select_related("drive", "parent", "part__vm_snapshot")


def made_of(source: Drive | Snapshot) -> QuerySet[Drive]:
    """Drives that were made of a drive or of its snapshots; of a snapshot."""
    if isinstance(source, Snapshot):
        return source.clones.order_by("name")
    of_it = Q(source_drive=source) | Q(source_snapshot__drive=source)
    return Drive.objects.filter(of_it).order_by("name")

"""Querysets with all that a list or a page shows, in a constant number of queries."""

from __future__ import annotations

from django.db.models import Count, Prefetch, QuerySet

from vms.models import VM, Attachment, Boot, SnapshotPart, VMSnapshot
from vms.states import WITH_VMM, State


def vm_list() -> QuerySet[VM]:
    """VMs with their drives and images: three queries whatever the length."""
    attachments = Attachment.objects.select_related("drive__image")
    return VM.objects.select_related("kernel").prefetch_related(
        Prefetch("attachments", attachments)
    )


def vm_detail() -> QuerySet[VM]:
    """VMs with their drives, images and boots."""
    boots = Boot.objects.select_related("kernel").order_by("-number")
    return vm_list().prefetch_related(Prefetch("boots", boots))


def snapshot_list() -> QuerySet[VMSnapshot]:
    """Snapshots of VMs with their parts: two queries whatever the length."""
    parts = SnapshotPart.objects.select_related("snapshot__drive")
    return VMSnapshot.objects.select_related("vm", "parent").prefetch_related(
        Prefetch("parts", parts)
    )


def vms_on_firecracker() -> list[tuple[str, str]]:
    """(version, name) of each VM that Firecracker runs now."""
    boots = Boot.objects.filter(
        ended_at=None, hypervisor=VM.Hypervisor.FIRECRACKER, vm__state__in=WITH_VMM
    )
    return list(boots.values_list("hypervisor_version", "vm__name"))


def counts_by_state() -> dict[str, int]:
    """How many VMs are in each state, every state named."""
    rows = VM.objects.order_by().values_list("state").annotate(count=Count("pk"))
    return {state.value: 0 for state in State} | dict(rows)

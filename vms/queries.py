"""Querysets with all that a list or a page shows, in a constant number of queries."""

from __future__ import annotations

from django.db.models import Count, Prefetch, Q, QuerySet

from vms.models import VM, Attachment, Boot, Pool, SnapshotPart, VMSnapshot, WarmTemplate
from vms.models.vms import VMs
from vms.states import WITH_VMM, State


def vm_list() -> VMs:
    """VMs with their drives and images: three queries whatever the length."""
    attachments = Attachment.objects.select_related("drive__image")
    return VM.objects.select_related("kernel").prefetch_related(
        Prefetch("attachments", attachments)
    )


def vm_detail() -> VMs:
    """VMs with their drives, images and boots, and what they were made of.

    What they were made of comes with the row: a checkpoint that only its forks needed goes as
    soon as they run, and must not be missing when it is looked for a moment later.
    """
    boots = Boot.objects.select_related("kernel").order_by("-number")
    made_of = vm_list().select_related("parent", "pool", "source_snapshot", "resume_from__vm")
    return made_of.prefetch_related(Prefetch("boots", boots))


def snapshot_list() -> QuerySet[VMSnapshot]:
    """Snapshots of VMs with their parts: two queries whatever the length."""
    parts = SnapshotPart.objects.select_related("snapshot__drive")
    return VMSnapshot.objects.select_related("vm", "parent").prefetch_related(
        Prefetch("parts", parts)
    )


def warm_templates() -> QuerySet[WarmTemplate]:
    """Warm templates with what they are made of: two queries whatever the length."""
    parts = SnapshotPart.objects.select_related("snapshot__drive")
    return WarmTemplate.objects.select_related(
        "image", "kernel", "vm", "checkpoint"
    ).prefetch_related(Prefetch("checkpoint__parts", parts))


def pools() -> QuerySet[Pool]:
    """Pools with the VMs that wait in them as ``waiting``, oldest first: two queries."""
    rows = VM.objects.filter(purpose=VM.Purpose.POOL).order_by("created_at")
    return Pool.objects.select_related("image", "template").prefetch_related(
        Prefetch("vms", rows, to_attr="waiting")
    )


def pool_counts() -> list[tuple[str, int, int]]:
    """(name, VMs that are ready in it, its size) of each pool."""
    ready = Count("vms", Q(vms__purpose=VM.Purpose.POOL, vms__state=State.READY))
    return list(
        Pool.objects.order_by("name").annotate(ready=ready).values_list("name", "ready", "size")
    )


def vms_on_firecracker() -> list[tuple[str, str]]:
    """(version, name) of each VM that Firecracker runs now."""
    boots = Boot.objects.filter(
        ended_at=None, hypervisor=VM.Hypervisor.FIRECRACKER, vm__state__in=WITH_VMM
    )
    return list(boots.values_list("hypervisor_version", "vm__name"))


def vms_on_kernels() -> list[tuple[int, str]]:
    """(ID of the kernel, name of the VM) of each VM that runs now."""
    boots = Boot.objects.filter(ended_at=None, kernel__isnull=False, vm__state__in=WITH_VMM)
    return [(int(pk), name) for pk, name in boots.values_list("kernel_id", "vm__name")]


def counts_by_state() -> dict[str, int]:
    """How many VMs that are somebody's are in each state, every state named."""
    rows = VM.objects.shown().order_by().values_list("state").annotate(count=Count("pk"))
    return {state.value: 0 for state in State} | dict(rows)

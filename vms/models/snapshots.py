"""Snapshots of whole VMs."""

from __future__ import annotations

from django.db import models

from drives.models import Consistency, Snapshot
from nexus_site.core.models import NamedModel, NexusModel
from vms.models.vms import VM


class VMSnapshot(NamedModel):
    """All drives of a VM at one instant, and what the VM was like then."""

    class State(models.TextChoices):
        CREATING = "creating"
        READY = "ready"
        DELETING = "deleting"

    vm = models.ForeignKey(VM, on_delete=models.PROTECT, related_name="snapshots")
    state = models.CharField(max_length=10, choices=State.choices, default=State.CREATING)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="children"
    )
    consistency = models.CharField(max_length=10, choices=Consistency.choices, blank=True)
    held_ms = models.PositiveIntegerField(
        null=True, blank=True, help_text="How long the VM's CPUs stood still, in milliseconds."
    )
    vcpu_count = models.PositiveIntegerField()
    mem_size_mib = models.PositiveIntegerField()
    with_memory = models.BooleanField(
        default=False, help_text="A checkpoint: VMs can go on from it."
    )
    memory_bytes = models.PositiveBigIntegerField(
        null=True, blank=True, help_text="What its memory takes on the disk, once it is saved."
    )
    memory_of = models.JSONField(
        default=dict, help_text="What the memory was saved by: hypervisor, version, accelerator."
    )
    for_forks = models.BooleanField(
        default=False,
        editable=False,
        help_text="Taken for forks alone: it goes once all of them have gone on from it.",
    )
    drives = models.ManyToManyField(Snapshot, through="SnapshotPart", related_name="vm_snapshots")

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "VM snapshot"


class SnapshotPart(NexusModel):
    """A drive's snapshot in a VM's, with the place that the drive had."""

    vm_snapshot = models.ForeignKey(VMSnapshot, on_delete=models.CASCADE, related_name="parts")
    snapshot = models.OneToOneField(Snapshot, on_delete=models.PROTECT, related_name="part")
    is_root = models.BooleanField()
    read_only = models.BooleanField(default=False)

    class Meta:
        ordering = ["-is_root", "created_at"]

    def __str__(self) -> str:
        return f"{self.snapshot} in {self.vm_snapshot}"

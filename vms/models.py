"""VMs, what is attached to them, every move of their states, and every boot."""

from __future__ import annotations

from itertools import count
from typing import Any

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from drives.models import Consistency, Drive, Snapshot
from images.models import Image, Kernel
from nexus_site.core.ids import NexusIDField
from nexus_site.core.models import NamedModel, NexusModel
from vms.states import Desired, State


def free_slot() -> int:
    """The smallest slot that no VM has."""
    taken = set(VM.objects.values_list("slot", flat=True))
    return next(slot for slot in count(1) if slot not in taken)


class VM(NamedModel):
    """A microVM. Its ``state`` is written by ``states.move`` alone."""

    class Hypervisor(models.TextChoices):
        AUTO = "auto", "automatic"
        FIRECRACKER = "firecracker", "Firecracker"
        QEMU = "qemu", "QEMU"

    state = models.CharField(
        max_length=12, choices=State.choices, default=State.CREATED, db_index=True
    )
    state_since = models.DateTimeField(default=timezone.now, editable=False)
    desired_state = models.CharField(
        max_length=10, choices=Desired.choices, default=Desired.STOPPED
    )
    vcpu_count = models.PositiveIntegerField(default=1, validators=[MinValueValidator(1)])
    mem_size_mib = models.PositiveIntegerField(default=512, validators=[MinValueValidator(64)])
    slot = models.PositiveIntegerField(
        unique=True,
        editable=False,
        help_text="Its number on this host: vsock CID and user ID come from it.",
    )
    hypervisor = models.CharField(
        max_length=20,
        choices=Hypervisor.choices,
        default=Hypervisor.AUTO,
        help_text="What it is to run on; automatic: the best that works here.",
    )
    vmm = models.CharField(
        max_length=20, blank=True, editable=False, help_text="What it runs on, or ran on last."
    )
    disk_mib_s = models.PositiveIntegerField(
        null=True, blank=True, help_text="What each disk may read and write in a second, in MiB."
    )
    disk_iops = models.PositiveIntegerField(
        null=True, blank=True, help_text="How often each disk may do so in a second."
    )
    network_mib_s = models.PositiveIntegerField(
        null=True, blank=True, help_text="What it may send, and receive, in a second, in MiB."
    )
    kernel = models.ForeignKey(
        Kernel,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="vms",
        help_text="Empty: the default kernel at the time of each start.",
    )
    mac = models.CharField(max_length=17, unique=True)
    agent = models.JSONField(default=dict, help_text="What its agent said in its last hello.")
    heartbeat = models.JSONField(default=dict, help_text="The last answer of its agent.")
    heartbeat_at = models.DateTimeField(null=True, blank=True)
    drives = models.ManyToManyField(Drive, through="Attachment", related_name="vms")
    head = models.ForeignKey(
        "VMSnapshot",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The snapshot that it goes on from; the next one's parent.",
    )
    source_snapshot = models.ForeignKey(
        "VMSnapshot", null=True, blank=True, on_delete=models.SET_NULL, related_name="clones"
    )

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "VM"
        verbose_name_plural = "VMs"

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self.slot:  # they begin with 1
            self.slot = free_slot()
        super().save(*args, **kwargs)

    @property
    def image(self) -> Image | None:
        """The image its root drive was made from; prefetch ``attachments__drive__image``."""
        for attachment in self.attachments.all():
            if attachment.is_root:
                return attachment.drive.image
        return None


class Attachment(NexusModel):
    """A drive in a VM: at most one VM a drive, exactly one root drive a VM that starts."""

    vm = models.ForeignKey(VM, on_delete=models.CASCADE, related_name="attachments")
    drive = models.OneToOneField(Drive, on_delete=models.PROTECT, related_name="attachment")
    is_root = models.BooleanField(default=True)
    read_only = models.BooleanField(default=False)

    class Meta:
        ordering = ["-is_root", "created_at"]
        constraints = [
            models.UniqueConstraint(
                fields=["vm"], condition=models.Q(is_root=True), name="one_root_drive_a_vm"
            )
        ]

    def __str__(self) -> str:
        return f"{self.drive} in {self.vm}"


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


class Transition(models.Model):
    """One move of a VM's state; each ``from_state`` is the ``to_state`` before it."""

    number = models.BigAutoField(primary_key=True)
    vm = models.ForeignKey(VM, on_delete=models.CASCADE, related_name="history")
    at = models.DateTimeField(default=timezone.now)
    from_state = models.CharField(max_length=12, choices=State.choices, blank=True)
    to_state = models.CharField(max_length=12, choices=State.choices)
    reason = models.CharField(max_length=300)
    actor = models.CharField(max_length=80)
    operation_id = NexusIDField(null=True, blank=True)
    detail = models.JSONField(default=dict)

    class Meta:
        ordering = ["number"]
        indexes = [models.Index(fields=["vm", "number"])]

    def __str__(self) -> str:
        return f"{self.from_state or '∅'} → {self.to_state}"


class Boot(NexusModel):
    """One start of a VM: with what, how long each part took, and how it ended."""

    vm = models.ForeignKey(VM, on_delete=models.CASCADE, related_name="boots")
    number = models.PositiveIntegerField()
    hypervisor = models.CharField(max_length=20)
    hypervisor_version = models.CharField(max_length=40, blank=True)
    accelerator = models.CharField(max_length=10, blank=True)
    choice = models.CharField(max_length=300, blank=True, help_text="Why this hypervisor.")
    jailed = models.BooleanField(default=False, help_text="The VMM had no rights but its own.")
    kernel = models.ForeignKey(Kernel, null=True, on_delete=models.SET_NULL)
    handle = models.JSONField(default=dict, help_text="Process IDs and their start times.")
    launched_at = models.DateTimeField(null=True, blank=True)
    hello_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    exit = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict, help_text="The VMM's own counters, as last seen.")

    class Meta:
        ordering = ["vm", "-number"]
        constraints = [models.UniqueConstraint(fields=["vm", "number"], name="boot_number")]

    def __str__(self) -> str:
        return f"boot {self.number} of {self.vm}"

    @property
    def runs_on(self) -> str:
        """For people: ``Firecracker 1.12.1, KVM, jailed``; ``QEMU 7.2, emulation``."""
        label = str(dict(VM.Hypervisor.choices).get(self.hypervisor, self.hypervisor))
        how = {"kvm": "KVM", "tcg": "emulation"}.get(self.accelerator, self.accelerator)
        parts = [f"{label} {self.hypervisor_version}".strip(), how, "jailed" if self.jailed else ""]
        return ", ".join(filter(None, parts))

    @property
    def seconds_to_hello(self) -> float | None:
        """From the launch of the VMM to the agent's hello."""
        if self.launched_at is None or self.hello_at is None:
            return None
        return (self.hello_at - self.launched_at).total_seconds()

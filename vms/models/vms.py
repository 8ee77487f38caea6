"""VMs, and the drives that are attached to them."""

from __future__ import annotations

from itertools import count
from typing import Any

from django.core.validators import MinValueValidator
from django.db import models
from django.utils import timezone

from drives.models import Drive
from images.models import Image, Kernel
from nexus_site.core.models import NamedModel, NexusModel
from vms.states import Desired, State


def free_slot() -> int:
    """The smallest slot that no VM has."""
    taken = set(VM.objects.values_list("slot", flat=True))
    return next(slot for slot in count(1) if slot not in taken)


class VMs(models.QuerySet["VM"]):
    """VMs, of whatever purpose: capacity, the supervisor and the storage know them all."""

    def shown(self) -> VMs:
        """Those that are somebody's: what people list, count, choose from and change."""
        return self.filter(purpose=VM.Purpose.USE)


class VM(NamedModel):
    """A microVM. Its ``state`` is written by ``states.move`` alone."""

    class Hypervisor(models.TextChoices):
        AUTO = "auto", "automatic"
        FIRECRACKER = "firecracker", "Firecracker"
        QEMU = "qemu", "QEMU"

    class RestartPolicy(models.TextChoices):
        NO = "no", "never"
        ON_FAILURE = "on-failure", "when it crashed or could not be started"
        ALWAYS = "always", "unless somebody stopped it"

    class UnreachableAction(models.TextChoices):
        KEEP = "keep", "leave it alone"
        RESTART = "restart", "restart it"
        STOP = "stop", "stop it"

    class Purpose(models.TextChoices):
        USE = "use", "somebody's"
        WARM = "warm", "saved as a warm template"
        POOL = "pool", "waiting in a pool"

    purpose = models.CharField(
        max_length=4, choices=Purpose.choices, default=Purpose.USE, editable=False, db_index=True
    )
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
    restart_policy = models.CharField(
        max_length=10,
        choices=RestartPolicy.choices,
        default=RestartPolicy.NO,
        help_text="When it is started again after it has ended unasked.",
    )
    unreachable_action = models.CharField(
        max_length=10,
        choices=UnreachableAction.choices,
        default=UnreachableAction.KEEP,
        help_text="What is done once its agent has stopped answering.",
    )
    restarts = models.PositiveIntegerField(
        default=0, editable=False, help_text="By the policy, one after the other."
    )
    restart_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When the policy starts it next."
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
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="children",
        help_text="The VM that it was cloned or forked from.",
    )
    resume_from = models.ForeignKey(
        "VMSnapshot",
        null=True,
        blank=True,
        editable=False,
        on_delete=models.SET_NULL,
        related_name="to_resume",
        help_text="The checkpoint whose memory its next start goes on from.",
    )
    saved_memory = models.JSONField(
        default=dict, editable=False, help_text="Of a suspended VM: what is known of its memory."
    )
    idle_suspend_minutes = models.PositiveIntegerField(
        null=True, blank=True, help_text="After so long without work it suspends itself."
    )
    active_at = models.DateTimeField(
        null=True, blank=True, editable=False, help_text="When it was last seen at work."
    )
    pool = models.ForeignKey(
        "Pool", null=True, blank=True, editable=False, on_delete=models.SET_NULL, related_name="vms"
    )

    objects = VMs.as_manager()

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

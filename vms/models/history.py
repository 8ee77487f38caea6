"""What happened to a VM: every move of its state, and every boot."""

from __future__ import annotations

from django.db import models
from django.utils import timezone

from images.models import Kernel
from nexus_site.core.ids import NexusIDField
from nexus_site.core.models import NexusModel
from vms.models.vms import VM
from vms.states import State


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


class Memory(models.TextChoices):
    """Whose memory a start can go on from."""

    SUSPENDED = "suspended", "its own, from when it was suspended"
    CHECKPOINT = "checkpoint", "a checkpoint's"
    WARM = "warm", "a warm template's"


class Boot(NexusModel):
    """One start of a VM: with what, how long each part took, and how it ended."""

    vm = models.ForeignKey(VM, on_delete=models.CASCADE, related_name="boots")
    number = models.PositiveIntegerField()
    hypervisor = models.CharField(max_length=20)
    hypervisor_version = models.CharField(max_length=40, blank=True)
    accelerator = models.CharField(max_length=10, blank=True)
    choice = models.CharField(max_length=300, blank=True, help_text="Why this hypervisor.")
    resumed_from = models.CharField(max_length=10, choices=Memory.choices, blank=True)
    resumed = models.CharField(
        max_length=300, blank=True, help_text="From what it was resumed, or why it was booted."
    )
    jailed = models.BooleanField(default=False, help_text="The VMM had no rights but its own.")
    kernel = models.ForeignKey(Kernel, null=True, on_delete=models.SET_NULL)
    handle = models.JSONField(default=dict, help_text="Process IDs and their start times.")
    launched_at = models.DateTimeField(null=True, blank=True)
    hello_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    exit = models.JSONField(default=dict)
    metrics = models.JSONField(default=dict, help_text="The VMM's own counters, as last seen.")

    class Meta:
        ordering = ["vm_id", "-number"]
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

"""VMs that need not boot: warm templates, and pools of VMs that are ready."""

from __future__ import annotations

from django.db import models

from builds.models import Template
from images.models import Image, Kernel
from nexus_site.core.models import NamedModel, NexusModel
from vms.models.snapshots import VMSnapshot
from vms.models.vms import VM


class WarmTemplate(NexusModel):
    """An image that has booted once: the checkpoint that fresh VMs of it go on from.

    ``key`` is a digest of ``facts``: all that must be the same for a guest to go on.
    """

    class State(models.TextChoices):
        WANTED = "wanted", "to be made"
        MAKING = "making", "being made"
        READY = "ready", "ready"
        FAILED = "failed", "of no use"

    key = models.CharField(max_length=64, unique=True)
    facts = models.JSONField(default=dict)
    image = models.ForeignKey(
        Image, null=True, on_delete=models.SET_NULL, related_name="warm_templates"
    )
    kernel = models.ForeignKey(Kernel, null=True, on_delete=models.SET_NULL, related_name="+")
    state = models.CharField(max_length=10, choices=State.choices, default=State.WANTED)
    problem = models.TextField(blank=True, help_text="Why it could not be made.")
    vm = models.OneToOneField(
        VM,
        null=True,
        on_delete=models.SET_NULL,
        related_name="warm_template",
        help_text="The VM that booted for it; nobody sees it.",
    )
    checkpoint = models.OneToOneField(
        VMSnapshot, null=True, on_delete=models.SET_NULL, related_name="warm_template"
    )
    hits = models.PositiveIntegerField(default=0)
    last_hit_at = models.DateTimeField(null=True)

    class Meta:
        ordering = ["-created_at"]
        verbose_name = "warm template"

    @property
    def name(self) -> str:
        """What events call it."""
        return self.image.name if self.image else ""

    def __str__(self) -> str:
        return f"warm template of {self.image.name if self.image else 'a deleted image'}"


class Pool(NamedModel):
    """So many VMs of an image that are ready before anybody asks for one."""

    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="pools")
    template = models.ForeignKey(
        Template,
        null=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="Whose current image it follows; none: its image stays.",
    )
    size = models.PositiveIntegerField(help_text="How many VMs wait.")
    shape = models.JSONField(default=dict, help_text="What its VMs are like.")
    taken = models.PositiveIntegerField(default=0, editable=False)
    problem = models.TextField(blank=True, help_text="Why it is not full.")
    failures = models.PositiveIntegerField(
        default=0, editable=False, help_text="VMs of it that came to nothing, in a row."
    )
    retry_at = models.DateTimeField(
        null=True, editable=False, help_text="After a failure: when it makes the next VM."
    )

    class Meta:
        ordering = ["-created_at"]

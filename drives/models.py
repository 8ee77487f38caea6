"""Drives: writable copy-on-write copies of images."""

from __future__ import annotations

from django.db import models

from images.models import Image
from nexus_site.core.models import NamedModel


class Drive(NamedModel):
    """A writable block device of a VM, made from an image. Its file is named by its ID."""

    class State(models.TextChoices):
        CREATING = "creating"
        READY = "ready"
        DELETING = "deleting"

    state = models.CharField(max_length=10, choices=State.choices, default=State.CREATING)
    image = models.ForeignKey(Image, on_delete=models.PROTECT, related_name="drives")
    size_bytes = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["-created_at"]

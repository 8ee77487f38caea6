"""Drives, and what they were at some point in time."""

from __future__ import annotations

from django.db import models

from images.models import Image
from nexus_site.core.models import NamedModel


class Consistency(models.TextChoices):
    """What a guest finds in a snapshot."""

    AT_REST = "at-rest", "taken at rest"
    FROZEN = "frozen", "frozen by the agent"
    CRASH = "crash", "as after a power cut"


class Drive(NamedModel):
    """A writable block device of a VM. Its storage is named by its ID."""

    class State(models.TextChoices):
        CREATING = "creating"
        READY = "ready"
        DELETING = "deleting"
        MISSING = "missing"  # its file is gone; ``storage check --repair`` said so

    class Origin(models.TextChoices):
        """What a drive was made from."""

        IMAGE = "image"
        EMPTY = "empty"
        DRIVE = "drive"
        SNAPSHOT = "snapshot"
        IMPORT = "import"

    state = models.CharField(max_length=10, choices=State.choices, default=State.CREATING)
    origin = models.CharField(max_length=10, choices=Origin.choices, default=Origin.IMAGE)
    image = models.ForeignKey(
        Image,
        null=True,
        blank=True,
        on_delete=models.PROTECT,
        related_name="drives",
        help_text="The image it descends from; clones take it over.",
    )
    source_drive = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.SET_NULL, related_name="clones"
    )
    source_snapshot = models.ForeignKey(
        "Snapshot", null=True, blank=True, on_delete=models.SET_NULL, related_name="clones"
    )
    head = models.ForeignKey(
        "Snapshot",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="+",
        help_text="The snapshot that its contents go on from; the next one's parent.",
    )
    size_bytes = models.PositiveBigIntegerField()
    used = models.BooleanField(
        default=False, editable=False, help_text="A guest has had it, or it was changed otherwise."
    )
    pristine = models.BooleanField(
        default=False, editable=False, help_text="It has been made as its image is, to the byte."
    )
    delete_with_vm = models.BooleanField(
        default=False, help_text="Deleted when the VM that it is attached to is deleted."
    )

    class Meta:
        ordering = ["-created_at"]


class Snapshot(NamedModel):
    """A read-only point in time of a drive."""

    class State(models.TextChoices):
        CREATING = "creating"
        READY = "ready"
        DELETING = "deleting"
        MISSING = "missing"

    state = models.CharField(max_length=10, choices=State.choices, default=State.CREATING)
    drive = models.ForeignKey(Drive, on_delete=models.PROTECT, related_name="snapshots")
    parent = models.ForeignKey(
        "self",
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="children",
        help_text="The snapshot before it; when that is deleted, the one before.",
    )
    size_bytes = models.PositiveBigIntegerField()
    consistency = models.CharField(max_length=10, choices=Consistency.choices, blank=True)
    changes = models.JSONField(
        null=True,
        editable=False,
        help_text="Where it differs from the image that its drive was made of, as [start, end] "
        "pairs in bytes; null: nobody has looked, or it is too much.",
    )

    class Meta:
        ordering = ["-created_at"]

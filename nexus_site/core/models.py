"""The rows that every app stands on: operations, events, tokens, settings."""

from __future__ import annotations

from typing import Any

from django.db import models
from django.utils import timezone

from nexus_site.core.ids import NexusID, NexusIDField, validate_name


class NexusModel(models.Model):
    """A resource: a 63-bit ID and the time it came to be."""

    id = NexusIDField(primary_key=True, default=NexusID.random, editable=False)
    created_at = models.DateTimeField(default=timezone.now, editable=False, db_index=True)

    class Meta:
        abstract = True

    @property
    def ref(self) -> str:
        """How the resource is shown and linked to: the 13 letters of its ID."""
        return str(self.id)


class NamedModel(NexusModel):
    """A resource that people name; names are unique in their kind."""

    name = models.CharField(max_length=63, unique=True, validators=[validate_name])

    class Meta:
        abstract = True

    def __str__(self) -> str:
        return self.name


class Operation(NexusModel):
    """A long-running piece of work: who asked, which steps, how far, what came of it.

    The row is the record; the queue carries only its ID. A worker that runs it holds a
    lease; whatever outlives its lease is picked up again by the sweep (``operations.sweep``).
    """

    class State(models.TextChoices):
        QUEUED = "queued"
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    kind = models.CharField(max_length=40, db_index=True)
    title = models.CharField(max_length=200)
    state = models.CharField(
        max_length=10, choices=State.choices, default=State.QUEUED, db_index=True
    )
    actor = models.CharField(max_length=80)
    subject_kind = models.CharField(max_length=20, blank=True)
    subject_id = NexusIDField(null=True, blank=True, db_index=True)
    subject_name = models.CharField(max_length=63, blank=True)
    parent = models.ForeignKey(
        "self", null=True, blank=True, on_delete=models.CASCADE, related_name="children"
    )
    params = models.JSONField(default=dict)
    context = models.JSONField(default=dict, help_text="What the steps have made so far.")
    steps = models.JSONField(default=list)
    result = models.JSONField(default=dict)
    error = models.JSONField(default=dict)
    note = models.CharField(max_length=200, blank=True)
    cancel_requested = models.BooleanField(default=False)
    started_at = models.DateTimeField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    attempt = models.PositiveIntegerField(default=0)
    lease_owner = models.CharField(max_length=80, blank=True)
    lease_until = models.DateTimeField(null=True, blank=True)
    not_before = models.DateTimeField(default=timezone.now)
    deadline = models.DateTimeField()
    idempotency_key = models.CharField(max_length=120, null=True, blank=True, unique=True)

    class Meta:
        ordering = ["-created_at"]
        indexes = [models.Index(fields=["state", "lease_until"])]

    def __str__(self) -> str:
        return f"{self.kind} {self.ref}"

    @property
    def ended(self) -> bool:
        return self.state in (self.State.SUCCEEDED, self.State.FAILED, self.State.CANCELLED)

    @property
    def current_step(self) -> dict[str, Any] | None:
        """The step that runs now, else the last one that ran."""
        ran = [step for step in self.steps if step["state"] != "pending"]
        running = [step for step in ran if step["state"] == "running"]
        return running[0] if running else (ran[-1] if ran else None)

    @property
    def progress(self) -> float:
        """0.0 to 1.0: steps done, and the part of the one under way."""
        if self.state == self.State.SUCCEEDED:
            return 1.0
        if not self.steps:
            return 0.0
        return sum(_share(step) for step in self.steps) / len(self.steps)

    @property
    def seconds(self) -> float | None:
        """How long it has taken, from its start to its end or to now."""
        if self.started_at is None:
            return None
        return ((self.ended_at or timezone.now()) - self.started_at).total_seconds()


def _share(step: dict[str, Any]) -> float:
    if step["state"] in ("done", "skipped"):
        return 1.0
    return float(step.get("progress") or 0.0) if step["state"] == "running" else 0.0


class Event(models.Model):
    """One line of the append-only log that everything live is fed from."""

    seq = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(default=timezone.now, db_index=True)
    kind = models.CharField(max_length=40, db_index=True)
    actor = models.CharField(max_length=80)
    subject_kind = models.CharField(max_length=20)
    subject_id = NexusIDField(null=True, blank=True)
    subject_name = models.CharField(max_length=63, blank=True)
    operation_id = NexusIDField(null=True, blank=True)
    data = models.JSONField(default=dict)

    class Meta:
        ordering = ["-seq"]
        indexes = [models.Index(fields=["subject_kind", "subject_id", "seq"])]

    def __str__(self) -> str:
        return f"{self.seq} {self.kind}"


class Token(NexusModel):
    """A bearer token, kept as a hash. Shown once, when it is made."""

    class Scope(models.TextChoices):
        READ = "read"
        OPERATE = "operate"
        ADMIN = "admin"

    name = models.CharField(max_length=63)
    scope = models.CharField(max_length=10, choices=Scope.choices, default=Scope.OPERATE)
    hash = models.CharField(max_length=64, unique=True, editable=False)
    prefix = models.CharField(max_length=12, editable=False)
    last_used_at = models.DateTimeField(null=True, blank=True, editable=False)
    expires_at = models.DateTimeField(null=True, blank=True)
    revoked_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        ordering = ["name", "-created_at"]

    def __str__(self) -> str:
        return f"{self.name} ({self.prefix}…)"


class Setting(models.Model):
    """A value that Nexus keeps for itself, such as a probe's answer; one row a key."""

    key = models.CharField(max_length=80, primary_key=True)
    value = models.JSONField()
    updated_at = models.DateTimeField(auto_now=True)

    def __str__(self) -> str:
        return self.key

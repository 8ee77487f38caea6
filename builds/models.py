"""Templates say how an image is made; a build is one making of one."""

from __future__ import annotations

from django.db import models

from builds.recipe import Recipe, parse
from images.models import Image, Kernel, Rootfs
from nexus_site.core.ids import NexusIDField
from nexus_site.core.models import NamedModel, NexusModel


class Template(NamedModel):
    """A recipe for images. What it says is in its versions; the newest one counts."""

    description = models.CharField(max_length=200, blank=True)

    class Meta:
        ordering = ["name"]

    @property
    def current(self) -> TemplateVersion:
        """The version that a build uses now; no query where ``versions`` is prefetched."""
        if "versions" in getattr(self, "_prefetched_objects_cache", {}):
            return max(self.versions.all(), key=lambda version: version.number)
        return self.versions.select_related("rootfs").order_by("-number")[0]


class TemplateVersion(NexusModel):
    """One edition of a template; never changes, so a build can be repeated from it."""

    template = models.ForeignKey(Template, on_delete=models.CASCADE, related_name="versions")
    number = models.PositiveIntegerField()
    rootfs = models.ForeignKey(Rootfs, on_delete=models.PROTECT, related_name="template_versions")
    recipe = models.JSONField(default=dict, blank=True, help_text="See builds/recipe.py.")

    class Meta:
        ordering = ["template", "-number"]
        constraints = [
            models.UniqueConstraint(fields=["template", "number"], name="template_version_number")
        ]

    def __str__(self) -> str:
        return f"{self.template} v{self.number}"

    @property
    def parsed(self) -> Recipe:
        """The recipe, checked anew: rules may have become stricter since."""
        return parse(self.recipe)


class Making(NexusModel):
    """One run of something that makes; its steps are its operation's, its log is a file."""

    class State(models.TextChoices):
        RUNNING = "running"
        SUCCEEDED = "succeeded"
        FAILED = "failed"
        CANCELLED = "cancelled"

    state = models.CharField(
        max_length=10, choices=State.choices, default=State.RUNNING, db_index=True
    )
    operation_id = NexusIDField(null=True, blank=True)
    ended_at = models.DateTimeField(null=True, blank=True)
    error = models.JSONField(default=dict)

    class Meta:
        abstract = True
        ordering = ["-created_at"]

    def __str__(self) -> str:
        return f"build {self.ref}"


class Build(Making):
    """One run of a template version."""

    template_version = models.ForeignKey(
        TemplateVersion, on_delete=models.PROTECT, related_name="builds"
    )
    key = NexusIDField(
        null=True, blank=True, db_index=True, help_text="Derived from the inputs: build_id inside."
    )
    inputs = models.JSONField(default=dict, blank=True, help_text="See builds/inputs.py.")
    image = models.ForeignKey(
        Image, null=True, blank=True, on_delete=models.SET_NULL, related_name="builds"
    )
    image_name = models.CharField(max_length=63)
    agent_digest = models.CharField(max_length=64)
    verifies = models.ForeignKey(
        Image,
        null=True,
        blank=True,
        on_delete=models.SET_NULL,
        related_name="verifications",
        help_text="The image that this build is to make again, byte by byte.",
    )


class KernelBuild(Making):
    """One build of a kernel from its source and a fragment of options."""

    version = models.CharField(max_length=60, blank=True, help_text="Empty until it is known.")
    arch = models.CharField(max_length=20)
    source = models.CharField(max_length=500, help_text="URL, or the path of a tarball.")
    source_sha256 = models.CharField(max_length=64, blank=True)
    verification = models.CharField(
        max_length=200, blank=True, help_text="What vouches for the source: sha256, OpenPGP key…"
    )
    fragment = models.CharField(max_length=60, help_text="Name and number, such as microvm 1.")
    fragment_text = models.TextField(help_text="See builds/kernels/fragments.py.")
    jobs = models.PositiveSmallIntegerField(help_text="How many compilers run at once.")
    compiler = models.CharField(max_length=200, blank=True)
    compiled = models.PositiveIntegerField(default=0, help_text="Objects that are there.")
    expected = models.PositiveIntegerField(default=0, help_text="Objects there will be; a guess.")
    kernel = models.ForeignKey(
        Kernel, null=True, blank=True, on_delete=models.SET_NULL, related_name="builds"
    )

    @property
    def title(self) -> str:
        """How people call what it makes: Linux 6.1.192 (microvm 1)."""
        return f"Linux {self.version} ({self.fragment})".replace("  ", " ")

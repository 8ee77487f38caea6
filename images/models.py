"""What VMs boot from: root file systems as published, kernels, and bootable images."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.db import models

from nexus_site.core.models import NamedModel, NexusModel


class Provider(NamedModel):
    """A source of root file systems, as operators configure it; ``images/providers`` knows how.

    ``offers`` is what it could deliver when it was asked last, so that no page waits for a
    network; ``problem`` says why asking it failed, if it did.
    """

    class Type(models.TextChoices):
        EMBEDDED = "embedded"
        ALPINE = "alpine"
        DEBIAN = "debian"
        TARBALL = "tarball"
        OCI = "oci", "OCI"

    type = models.CharField(max_length=20, choices=Type.choices)
    config = models.JSONField(default=dict, blank=True, help_text="What its type needs.")
    enabled = models.BooleanField(default=True)
    position = models.PositiveSmallIntegerField(default=100, help_text="Lower is asked first.")
    offers = models.JSONField(default=list, blank=True, editable=False)
    problem = models.CharField(max_length=500, blank=True, editable=False)
    refreshed_at = models.DateTimeField(null=True, blank=True, editable=False)

    class Meta:
        ordering = ["position", "name"]


class Rootfs(NexusModel):
    """A distribution's root file system archive, as its publisher ships it; never changes."""

    distro = models.CharField(max_length=40)
    version = models.CharField(max_length=40)
    arch = models.CharField(max_length=20)
    provider = models.CharField(max_length=40)
    format = models.CharField(max_length=20, help_text="qcow2, tar.gz…")
    filename = models.CharField(max_length=200, help_text="Below the assets directory.")
    sha256 = models.CharField(max_length=64)
    size_bytes = models.PositiveBigIntegerField()
    source = models.CharField(max_length=500, blank=True, help_text="URL, or how it was made.")
    verification = models.CharField(
        max_length=200, blank=True, help_text="What vouches for it: sha256, OpenPGP key…"
    )
    verified_at = models.DateTimeField(null=True, blank=True)
    config = models.JSONField(
        default=dict,
        blank=True,
        help_text="env, entrypoint, cmd, working_dir, user of an OCI image.",
    )

    class Meta:
        ordering = ["distro", "-version"]
        verbose_name = "rootfs"
        verbose_name_plural = "rootfs"
        constraints = [
            models.UniqueConstraint(
                fields=["distro", "version", "arch", "provider"],
                name="one_rootfs_a_distro_version_arch_provider",
            )
        ]

    def __str__(self) -> str:
        return f"{self.distro.capitalize()} {self.version}"


class Kernel(NamedModel):
    """A kernel that VMs start: an uncompressed ELF ``vmlinux``, and the modules it has, if any.

    Only one that has booted is good. The embedded one, which its publisher boots, is the default
    of a new server before it has.
    """

    class State(models.TextChoices):
        UNVERIFIED = "unverified"
        GOOD = "good"
        BAD = "bad"

    version = models.CharField(max_length=60)
    arch = models.CharField(max_length=20)
    provider = models.CharField(max_length=40)
    directory = models.CharField(max_length=200, help_text="Below the assets directory.")
    sha256 = models.CharField(max_length=64, help_text="Of the vmlinux.")
    size_bytes = models.PositiveBigIntegerField()
    is_default = models.BooleanField(default=False)
    state = models.CharField(max_length=10, choices=State.choices, default=State.UNVERIFIED)
    source = models.CharField(max_length=500, blank=True, help_text="URL, or how it was made.")
    verification = models.CharField(
        max_length=200, blank=True, help_text="What vouches for its source: sha256, OpenPGP key…"
    )
    config_digest = models.CharField(
        max_length=64, blank=True, help_text="sha256 of the file config beside it; empty: none."
    )
    compiler = models.CharField(max_length=200, blank=True, help_text="As it calls itself.")
    boots = models.JSONField(
        default=dict,
        blank=True,
        help_text="By VMM: seconds from start to hello (null: never), at, problem.",
    )
    #: The names of the VMs that run it and that are pinned to it, once
    #: ``services.with_kernel_vms`` has asked.
    running_vms: Sequence[str] = ()
    pinned_vms: Sequence[str] = ()

    class Meta:
        ordering = ["-is_default", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["arch"], condition=models.Q(is_default=True), name="one_default_kernel"
            )
        ]


class VmmRelease(NexusModel):
    """A release of a VMM on this host: its programs, in a directory that never changes."""

    class Kind(models.TextChoices):
        FIRECRACKER = "firecracker", "Firecracker"

    kind = models.CharField(max_length=20, choices=Kind.choices, default=Kind.FIRECRACKER)
    version = models.CharField(max_length=40, help_text="Such as 1.12.1.")
    arch = models.CharField(max_length=20)
    provider = models.CharField(max_length=40)
    directory = models.CharField(max_length=200, help_text="Below the assets directory.")
    sha256 = models.CharField(max_length=64, help_text="Of the VMM's program.")
    jailer_sha256 = models.CharField(
        max_length=64, blank=True, help_text="Empty: it came without a jailer."
    )
    size_bytes = models.PositiveBigIntegerField(help_text="Of all its programs.")
    source = models.CharField(max_length=500, blank=True, help_text="URL, or where it was.")
    verification = models.CharField(
        max_length=200, blank=True, help_text="What vouches for it: sha256…"
    )
    is_default = models.BooleanField(default=False)
    #: The names of the VMs that run on it, once ``services.with_running_vms`` has asked.
    running_vms: Sequence[str] = ()

    class Meta:
        ordering = ["-is_default", "-created_at"]
        verbose_name = "VMM release"
        constraints = [
            models.UniqueConstraint(
                fields=["kind", "version", "arch"], name="one_vmm_release_a_kind_version_arch"
            ),
            models.UniqueConstraint(
                fields=["kind", "arch"],
                condition=models.Q(is_default=True),
                name="one_default_vmm_release",
            ),
        ]

    def __str__(self) -> str:
        return self.name

    @property
    def name(self) -> str:
        """How people and the event log call it."""
        return f"{self.get_kind_display()} {self.version}"


class Image(NamedModel):
    """A read-only, bootable ext4 root file system with the agent inside."""

    rootfs = models.ForeignKey(Rootfs, on_delete=models.PROTECT, related_name="images")
    arch = models.CharField(max_length=20)
    os_name = models.CharField(max_length=100, help_text="PRETTY_NAME of its os-release.")
    size_bytes = models.PositiveBigIntegerField(help_text="Of the file system.")
    used_bytes = models.PositiveBigIntegerField(help_text="On this host's disk.")
    digest = models.CharField(max_length=64, help_text="See images/digest.py.")
    agent_version = models.CharField(max_length=40)
    agent_digest = models.CharField(max_length=64)
    inputs = models.JSONField(
        default=dict, blank=True, help_text="All that it was built from; its ID is derived from it."
    )
    packages = models.JSONField(default=list, blank=True, help_text="[name, version] pairs.")
    init = models.CharField(max_length=20, blank=True, help_text="systemd, openrc, busybox, none.")

    class Meta:
        ordering = ["-created_at"]

    @property
    def build(self) -> Any:
        """The build that made it, without a query where ``builds`` is prefetched; or None."""
        made = [build for build in self.builds.all() if build.verifies_id is None]
        return min(made, key=lambda build: build.created_at, default=None)

"""What VMs boot from: root file systems as published, kernels, and bootable images."""

from __future__ import annotations

from django.db import models

from nexus_site.core.models import NamedModel, NexusModel


class Rootfs(NexusModel):
    """A distribution's root file system archive, as its publisher ships it."""

    distro = models.CharField(max_length=40)
    version = models.CharField(max_length=40)
    arch = models.CharField(max_length=20)
    provider = models.CharField(max_length=40)
    format = models.CharField(max_length=20, help_text="qcow2, tar.gz…")
    filename = models.CharField(max_length=200, help_text="Below the assets directory.")
    sha256 = models.CharField(max_length=64)
    size_bytes = models.PositiveBigIntegerField()

    class Meta:
        ordering = ["distro", "-version"]
        verbose_name = "rootfs"
        verbose_name_plural = "rootfs"
        constraints = [
            models.UniqueConstraint(
                fields=["distro", "version", "arch"], name="one_rootfs_a_distro_version_arch"
            )
        ]

    def __str__(self) -> str:
        return f"{self.distro.capitalize()} {self.version}"


class Kernel(NamedModel):
    """A kernel that VMs start: an uncompressed ELF ``vmlinux``, and its modules."""

    version = models.CharField(max_length=60)
    arch = models.CharField(max_length=20)
    provider = models.CharField(max_length=40)
    directory = models.CharField(max_length=200, help_text="Below the assets directory.")
    sha256 = models.CharField(max_length=64, help_text="Of the vmlinux.")
    size_bytes = models.PositiveBigIntegerField()
    is_default = models.BooleanField(default=False)

    class Meta:
        ordering = ["-is_default", "name"]
        constraints = [
            models.UniqueConstraint(
                fields=["arch"], condition=models.Q(is_default=True), name="one_default_kernel"
            )
        ]


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

    class Meta:
        ordering = ["-created_at"]

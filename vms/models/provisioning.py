"""What a VM is given when it starts, and how that went."""

from __future__ import annotations

from django.db import models

from nexus_site.core.ids import NexusIDField
from nexus_site.core.models import NexusModel
from vms.models.vms import VM


class Provisioning(NexusModel):
    """What a VM's guest is told at every start, and the script that it runs at its first.

    A VM without any has no row. Secrets are kept encrypted (``vms.secrets``).
    """

    class OnFailure(models.TextChoices):
        WARN = "warn", "the VM is ready, with a warning"
        FAIL = "fail", "the VM has failed and is stopped"

    class Phase(models.TextChoices):
        """How far the last start came."""

        NONE = "", "not begun"
        FILES = "files", "giving the guest its settings and files"
        SERVICES = "services", "waiting for the guest's services"
        SCRIPT = "script", "running the first-boot script"
        DONE = "done", "done"
        FAILED = "failed", "failed"

    vm = models.OneToOneField(VM, on_delete=models.CASCADE, related_name="provisioning")
    env = models.JSONField(default=dict, help_text="Variables of login shells and programs.")
    secret_env = models.TextField(
        blank=True, editable=False, help_text="The secret ones: encrypted JSON."
    )
    secret_names = models.JSONField(default=list, editable=False)
    hosts = models.JSONField(default=dict, help_text="Lines of /etc/hosts: name to address.")
    dns = models.JSONField(default=list, help_text="Name servers; empty: the host's.")
    script = models.TextField(blank=True, help_text="Run once for each root drive, as root.")
    on_failure = models.CharField(max_length=4, choices=OnFailure.choices, default=OnFailure.WARN)
    phase = models.CharField(max_length=10, choices=Phase.choices, blank=True, editable=False)
    boot_id = models.CharField(
        max_length=36, blank=True, editable=False, help_text="The guest's boot that it is about."
    )
    problem = models.TextField(blank=True, editable=False, help_text="Why it failed.")
    script_drive = NexusIDField(
        null=True, editable=False, help_text="The root drive whose script has run."
    )
    script_log = models.TextField(blank=True, editable=False, help_text="Its output, bounded.")
    script_exit = models.JSONField(default=dict, editable=False)
    script_ended_at = models.DateTimeField(null=True, editable=False)

    def __str__(self) -> str:
        return f"provisioning of {self.vm}"


class ProvisionedFile(NexusModel):
    """A file that a VM's guest gets at every start. A secret one is kept encrypted."""

    provisioning = models.ForeignKey(Provisioning, on_delete=models.CASCADE, related_name="files")
    path = models.CharField(max_length=1000)
    mode = models.PositiveIntegerField(default=0o644)
    user = models.CharField(max_length=100, blank=True)
    secret = models.BooleanField(default=False)
    content = models.BinaryField()
    size = models.PositiveIntegerField(help_text="Bytes, before encryption.")

    class Meta:
        ordering = ["path"]
        constraints = [
            models.UniqueConstraint(fields=["provisioning", "path"], name="one_file_a_path")
        ]

    def __str__(self) -> str:
        return self.path

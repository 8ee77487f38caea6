"""What VMs used, over time."""

from __future__ import annotations

from django.db import models

from vms.models.vms import VM


class Sample(models.Model):
    """What one VM used in the ``seconds`` before ``at``. Null: not known.

    ``cpu`` is a share, 0 to 1, of all the guest's processors, ``vmm_cpu`` of one of the host's;
    rates are bytes in a second. There are many rows: ``at`` is a number because that is a third of
    the size of a time, and every database can divide it into slots.
    """

    number = models.BigAutoField(primary_key=True)
    vm = models.ForeignKey(
        VM,
        on_delete=models.CASCADE,
        related_name="samples",
        db_index=False,  # the index below begins with it
    )
    at = models.BigIntegerField(help_text="Seconds since the epoch.")
    seconds = models.FloatField()
    thinned = models.BooleanField(default=False, help_text="Many samples in one.")
    cpu = models.FloatField(null=True)
    memory_used = models.BigIntegerField(null=True, help_text="Bytes.")
    memory_total = models.BigIntegerField(null=True, help_text="Bytes.")
    disk_read = models.FloatField(null=True)
    disk_write = models.FloatField(null=True)
    net_rx = models.FloatField(null=True)
    net_tx = models.FloatField(null=True)
    vmm_cpu = models.FloatField(null=True, help_text="Of one of the host's processors.")
    vmm_memory = models.BigIntegerField(null=True, help_text="Bytes that the VMM has in memory.")

    class Meta:
        ordering = ["at"]
        indexes = [models.Index(fields=["vm", "thinned", "at"])]

    def __str__(self) -> str:
        return f"{self.vm} at {self.at}"

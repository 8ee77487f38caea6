"""VMs, what is attached to them and given to them, what happened to them, and what they used."""

from vms.models.history import Boot, Memory, Transition
from vms.models.metrics import Sample
from vms.models.provisioning import ProvisionedFile, Provisioning
from vms.models.snapshots import SnapshotPart, VMSnapshot
from vms.models.vms import VM, Attachment, free_slot
from vms.models.warm import Pool, WarmTemplate

__all__ = [
    "VM",
    "Attachment",
    "Boot",
    "Memory",
    "Pool",
    "ProvisionedFile",
    "Provisioning",
    "Sample",
    "SnapshotPart",
    "Transition",
    "VMSnapshot",
    "WarmTemplate",
    "free_slot",
]

"""Disks as QEMU describes them, on its command line and over QMP alike."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vms.hypervisors.base import Disk, RateLimit

SCSI = "scsi"  # the controller that takes disks while the VM runs
Node = dict[str, Any]


@dataclass(frozen=True, order=True)
class ScsiAddress:
    """Where on the controller a disk is that was plugged."""

    id: int
    lun: int


def plugged_name(disk_name: str) -> str:
    """QEMU's name for a plugged disk, both of the block device and of the guest's device."""
    return f"plug-{disk_name}"


def scsi_device(disk_name: str, address: ScsiAddress | None = None) -> Node:
    """The device that shows a plugged disk to the guest; at the first free address, else."""
    name = plugged_name(disk_name)
    device: Node = {"driver": "scsi-hd", "bus": f"{SCSI}.0", "drive": name, "id": name}
    place = {"scsi-id": address.id, "lun": address.lun} if address else {}
    return device | {"serial": disk_name, "device_id": disk_name} | place


def throttle_group(disk: Disk, name: str) -> Node | None:
    """QEMU's object for the limit of the disk whose block device is `name`, if it has one."""
    if disk.limit == RateLimit():
        return None
    limits = {
        "bps-total": disk.limit.bytes_per_second,
        "iops-total": disk.limit.operations_per_second,
    }
    kept = {key: value for key, value in limits.items() if value is not None}
    return {"qom-type": "throttle-group", "id": throttle_name(name), "limits": kept}


def throttle_name(name: str) -> str:
    return f"limit-{name}"


def block_node(disk: Disk, name: str) -> Node:
    """QEMU's block device for a disk, on the command line and over QMP alike.

    The host's page cache is used and the guest's flushes are honoured; freed and zeroed blocks
    go back to the host. The limit, where there is one, comes first.
    """
    common: Node = {
        "read-only": disk.read_only,
        "discard": "unmap",
        "cache": {"direct": False, "no-flush": False},
    }
    file = common | {"driver": "file", "filename": str(disk.path), "aio": "threads"}
    raw = common | {"driver": "raw", "detect-zeroes": "unmap", "file": file}
    if disk.limit == RateLimit():
        return raw | {"node-name": name}
    group = throttle_name(name)
    return common | {"driver": "throttle", "node-name": name, "throttle-group": group, "file": raw}

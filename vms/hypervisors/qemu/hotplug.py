"""Disks that come and go while a VM runs, on the SCSI controller that every VM has for that.

Disks on virtio-mmio are at fixed places in memory. Each function looks at what QEMU has and
does what is still to be done, so what a killed worker left half done is no obstacle.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

from nexus_site.core.errors import Retryable
from vms.hypervisors import monitored
from vms.hypervisors.base import Disk
from vms.hypervisors.qemu import qmp
from vms.hypervisors.qemu.command import SCSI, block_node

GONE_SECONDS = 15.0


def problem(vm_dir: Path, disk_name: str = "") -> str:
    """See `Hypervisor.hotplug_problem`; from what the VMM was started with."""
    words = monitored.launched_with(vm_dir)
    if not any(f"id={SCSI}" in word.split(",") for word in words):
        return "The VM was started without a controller for such drives, by an older Nexus."
    if disk_name and any(f"serial={disk_name}" in word.split(",") for word in words):
        return "The VM was started with this drive; such disks are at fixed places."
    return ""


def plug(vm_dir: Path, disk: Disk) -> None:
    """Give the guest the disk."""
    name = _node(disk.name)
    if name not in _nodes(vm_dir):
        qmp.ask(vm_dir, ("blockdev-add", block_node(disk, name)))
    if name not in _devices(vm_dir):
        device = {"driver": "scsi-hd", "bus": f"{SCSI}.0", "drive": name, "id": name}
        names = {"serial": disk.name, "device_id": disk.name}
        qmp.ask(vm_dir, ("device_add", device | names))


def unplug(vm_dir: Path, disk_name: str) -> None:
    """Take the disk away from the guest; QEMU has closed its file then."""
    name = _node(disk_name)
    if name in _devices(vm_dir):
        qmp.ask(vm_dir, ("device_del", {"id": name}))
    deadline = time.monotonic() + GONE_SECONDS
    while name in _nodes(vm_dir):
        try:
            qmp.ask(vm_dir, ("blockdev-del", {"node-name": name}))
        except Retryable:  # the device, which is gone, still writes out what it had
            if time.monotonic() > deadline:
                raise
            time.sleep(monitored.POLL_SECONDS)


def _node(disk_name: str) -> str:
    """QEMU's name for the disk, both of the block device and of the guest's device."""
    return f"plug-{disk_name}"


def _nodes(vm_dir: Path) -> set[str]:
    (nodes,) = qmp.ask(vm_dir, ("query-named-block-nodes", {"flat": True}))
    return {node["node-name"] for node in cast("list[dict[str, Any]]", nodes)}


def _devices(vm_dir: Path) -> set[str]:
    (devices,) = qmp.ask(vm_dir, ("qom-list", {"path": "/machine/peripheral"}))
    return {device["name"] for device in cast("list[dict[str, Any]]", devices)}

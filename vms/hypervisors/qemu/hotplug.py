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
from vms.hypervisors.qemu.disks import (
    SCSI,
    ScsiAddress,
    block_node,
    plugged_name,
    scsi_device,
    throttle_group,
    throttle_name,
)

GONE_SECONDS = 15.0
PLUGGED = "/machine/peripheral"  # the devices with an ID, in QEMU's tree of objects


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
    name = plugged_name(disk.name)
    group = throttle_group(disk, name)
    if group and throttle_name(name) not in _names(vm_dir, "/objects"):
        qmp.ask(vm_dir, ("object-add", group))
    if name not in _nodes(vm_dir):
        qmp.ask(vm_dir, ("blockdev-add", block_node(disk, name)))
    if name not in _names(vm_dir, PLUGGED):
        qmp.ask(vm_dir, ("device_add", scsi_device(disk.name)))


def unplug(vm_dir: Path, disk_name: str) -> None:
    """Take the disk away from the guest; QEMU has closed its file then."""
    name = plugged_name(disk_name)
    if name in _names(vm_dir, PLUGGED):
        qmp.ask(vm_dir, ("device_del", {"id": name}))
    deadline = time.monotonic() + GONE_SECONDS
    while name in _nodes(vm_dir):
        try:
            qmp.ask(vm_dir, ("blockdev-del", {"node-name": name}))
        except Retryable:  # the device, which is gone, still writes out what it had
            if time.monotonic() > deadline:
                raise
            time.sleep(monitored.POLL_SECONDS)
    if throttle_name(name) in _names(vm_dir, "/objects"):
        qmp.ask(vm_dir, ("object-del", {"id": throttle_name(name)}))


def plugged(vm_dir: Path) -> dict[str, ScsiAddress]:
    """Where each disk is that was plugged, by its name."""
    prefix = plugged_name("")
    names = sorted(name for name in _names(vm_dir, PLUGGED) if name.startswith(prefix))
    found = {}
    for name in names:
        device = {"path": f"{PLUGGED}/{name}"}
        questions = [("qom-get", device | {"property": word}) for word in ("scsi-id", "lun")]
        number, lun = cast("list[int]", qmp.ask(vm_dir, *questions))
        found[name.removeprefix(prefix)] = ScsiAddress(number, lun)
    return found


def _nodes(vm_dir: Path) -> set[str]:
    (nodes,) = qmp.ask(vm_dir, ("query-named-block-nodes", {"flat": True}))
    return {node["node-name"] for node in cast("list[dict[str, Any]]", nodes)}


def _names(vm_dir: Path, path: str) -> set[str]:
    """What there is at a place of QEMU's tree of objects."""
    (members,) = qmp.ask(vm_dir, ("qom-list", {"path": path}))
    return {member["name"] for member in cast("list[dict[str, Any]]", members)}

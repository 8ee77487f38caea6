"""What Firecracker is told of a VM. Pure: a spec in, requests out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from nexus_site.core.errors import Invalid
from vms.hypervisors.base import Disk, RateLimit, VmmSpec
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.kernel_arguments import CONSOLE, root_arguments

VSOCK = "v.sock"
AGENT_PORT = 1024
FIRST_CID = 3  # those below have meanings of their own
MAX_DISKS = 15  # of 19 devices; the others are network, vsock, balloon and entropy
INTERFACE = "eth0"
REFILL_MS = 1000

# `reboot=k`: a pulse to the keyboard controller ends Firecracker; it has no other reset. The
# i8042 words spare the kernel half a second of probing for what is not there.
MACHINE = ("reboot=k", "pci=off", "i8042.noaux", "i8042.nomux", "i8042.dumbkbd")


@dataclass(frozen=True)
class Lent:
    """What the VMM calls the files of its VM; `tap` is none without a network."""

    kernel: str
    initrd: str | None
    disks: tuple[str, ...]
    tap: str | None


def requests(spec: VmmSpec, lent: Lent) -> list[Request]:
    """The calls that configure `spec`, in an order that Firecracker takes."""
    if len(spec.disks) > MAX_DISKS:
        raise Invalid(
            f"A VM can have at most {MAX_DISKS} disks with Firecracker.", code="too-many-disks"
        )
    machine = {"vcpu_count": spec.vcpu_count, "mem_size_mib": spec.mem_size_mib}
    return [
        Request("PUT", "/machine-config", machine),
        Request("PUT", "/boot-source", _boot_source(spec, lent)),
        *(_drive(*numbered) for numbered in enumerate(zip(spec.disks, lent.disks, strict=True))),
        *([_interface(spec, lent.tap)] if lent.tap else ()),
        Request("PUT", "/vsock", {"guest_cid": FIRST_CID + spec.slot, "uds_path": VSOCK}),
        Request("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True}),
        Request("PUT", "/entropy", {}),
    ]


def config_file(spec: VmmSpec, lent: Lent) -> dict[str, Any]:
    """The same as a document for Firecracker's --config-file."""
    document: dict[str, Any] = {}
    for request in requests(spec, lent):
        section, _, item = request.path.removeprefix("/").partition("/")
        if item:
            document.setdefault(section, []).append(request.body)
        else:
            document[section] = request.body
    return {"drives": []} | document


def kernel_arguments(spec: VmmSpec) -> list[str]:
    """The guest kernel's command line; the spec's own words come last and so win."""
    return [*CONSOLE, *MACHINE, *root_arguments(spec.disks), *spec.kernel_args]


def _boot_source(spec: VmmSpec, lent: Lent) -> dict[str, Any]:
    initrd = {"initrd_path": lent.initrd} if lent.initrd else {}
    words = " ".join(kernel_arguments(spec))
    return {"kernel_image_path": lent.kernel, "boot_args": words} | initrd


def _drive(index: int, disk_and_name: tuple[Disk, str]) -> Request:
    """With Writeback a guest's flush reaches the host's disk; else it is thrown away. The root
    is told by the kernel's words, as under QEMU."""
    disk, name = disk_and_name
    drive = {
        "drive_id": f"disk{index}",
        "path_on_host": name,
        "is_root_device": False,
        "is_read_only": disk.read_only,
        "cache_type": "Writeback",
    }
    limiter = _limiter(disk.limit)
    return Request(
        "PUT", f"/drives/disk{index}", drive | ({"rate_limiter": limiter} if limiter else {})
    )


def _interface(spec: VmmSpec, tap: str) -> Request:
    interface: dict[str, Any] = {
        "iface_id": INTERFACE,
        "guest_mac": spec.mac,
        "host_dev_name": tap,
    }
    if limiter := _limiter(spec.network_limit):
        interface |= {"rx_rate_limiter": limiter, "tx_rate_limiter": limiter}
    return Request("PUT", f"/network-interfaces/{INTERFACE}", interface)


def _limiter(limit: RateLimit) -> dict[str, Any]:
    """Token buckets that hold what may be done in a second, and fill in one."""
    buckets = {"bandwidth": limit.bytes_per_second, "ops": limit.operations_per_second}
    return {
        name: {"size": size, "refill_time": REFILL_MS}
        for name, size in buckets.items()
        if size is not None
    }

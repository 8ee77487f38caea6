"""What Firecracker is told of a VM."""

from dataclasses import replace
from pathlib import Path

import pytest

from nexus_site.core.errors import Invalid
from vms.hypervisors.base import Disk, RateLimit, VmmSpec
from vms.hypervisors.firecracker.api import Request
from vms.hypervisors.firecracker.configuration import (
    Lent,
    config_file,
    kernel_arguments,
    requests,
)

SPEC = VmmSpec(
    vm_dir=Path("/vms/one"),
    ref="aaaaaaaaaayds",
    slot=7,
    name="one",
    vcpu_count=2,
    mem_size_mib=512,
    kernel=Path("/kernels/vmlinux"),
    initrd=Path("/kernels/initrd"),
    disks=(
        Disk("root", Path("/drives/root")),
        Disk("my-data", Path("/drives/data"), read_only=True),
    ),
    mac="52:54:00:00:00:07",
    kernel_args=("quiet", "panic=5"),
)
LENT = Lent("lent/kernel", "lent/initrd", ("lent/disk0", "lent/disk1"), tap="tap0")


def body(path: str, spec: VmmSpec = SPEC, lent: Lent = LENT) -> object:
    (found,) = (request.body for request in requests(spec, lent) if request.path == path)
    return found


def test_a_whole_vm() -> None:
    words = (
        "console=ttyS0 loglevel=6 panic=-1 "
        "reboot=k pci=off i8042.noaux i8042.nomux i8042.dumbkbd "
        "root=/dev/vda rootfstype=ext4 rw rootflags=rw quiet panic=5"
    )
    root = {
        "drive_id": "disk0",
        "path_on_host": "lent/disk0",
        "is_root_device": False,
        "is_read_only": False,
        "cache_type": "Writeback",
    }
    data = root | {"drive_id": "disk1", "path_on_host": "lent/disk1", "is_read_only": True}
    assert requests(SPEC, LENT) == [
        Request("PUT", "/machine-config", {"vcpu_count": 2, "mem_size_mib": 512}),
        Request(
            "PUT",
            "/boot-source",
            {
                "kernel_image_path": "lent/kernel",
                "initrd_path": "lent/initrd",
                "boot_args": words,
            },
        ),
        Request("PUT", "/drives/disk0", root),
        Request("PUT", "/drives/disk1", data),
        Request(
            "PUT",
            "/network-interfaces/eth0",
            {"iface_id": "eth0", "guest_mac": "52:54:00:00:00:07", "host_dev_name": "tap0"},
        ),
        Request("PUT", "/vsock", {"guest_cid": 10, "uds_path": "v.sock"}),
        Request("PUT", "/balloon", {"amount_mib": 0, "deflate_on_oom": True}),
        Request("PUT", "/entropy", {}),
    ]


def test_without_network_initrd_and_disks() -> None:
    lent = Lent("lent/kernel", None, (), tap=None)
    spec = replace(SPEC, initrd=None, disks=(), kernel_args=())
    assert [request.path for request in requests(spec, lent)] == [
        *["/machine-config", "/boot-source", "/vsock", "/balloon", "/entropy"]
    ]
    assert body("/boot-source", spec, lent) == {
        "kernel_image_path": "lent/kernel",
        "boot_args": " ".join(kernel_arguments(spec)),
    }
    assert not any(word.startswith("root") for word in kernel_arguments(spec))


def test_a_read_only_root_is_mounted_so() -> None:
    words = kernel_arguments(replace(SPEC, disks=(replace(SPEC.disks[0], read_only=True),)))
    assert "ro" in words
    assert "rw" not in words


@pytest.mark.parametrize(
    ("limit", "buckets"),
    [
        (RateLimit(bytes_per_second=10**6), {"bandwidth": {"size": 10**6, "refill_time": 1000}}),
        (RateLimit(operations_per_second=50), {"ops": {"size": 50, "refill_time": 1000}}),
        (
            RateLimit(10**6, 50),
            {
                "bandwidth": {"size": 10**6, "refill_time": 1000},
                "ops": {"size": 50, "refill_time": 1000},
            },
        ),
    ],
)
def test_limits_are_token_buckets(limit: RateLimit, buckets: object) -> None:
    spec = replace(SPEC, disks=(replace(SPEC.disks[0], limit=limit),), network_limit=limit)
    lent = replace(LENT, disks=("lent/disk0",))
    drive, interface = (
        body("/drives/disk0", spec, lent),
        body("/network-interfaces/eth0", spec, lent),
    )
    assert isinstance(drive, dict)
    assert isinstance(interface, dict)
    assert drive["rate_limiter"] == buckets
    assert interface["rx_rate_limiter"] == interface["tx_rate_limiter"] == buckets


def test_more_disks_than_it_has_room_for() -> None:
    disks = tuple(Disk(f"data{n}", Path("/d"), read_only=True) for n in range(16))
    with pytest.raises(Invalid, match="at most 15") as caught:
        requests(replace(SPEC, disks=disks), replace(LENT, disks=("lent/d",) * 16))
    assert caught.value.code == "too-many-disks"


def test_the_config_file_says_the_same() -> None:
    document = config_file(SPEC, LENT)
    assert set(document) == {
        *["machine-config", "boot-source", "drives", "network-interfaces"],
        *["vsock", "balloon", "entropy"],
    }
    assert document["machine-config"] == body("/machine-config")
    assert document["drives"] == [body("/drives/disk0"), body("/drives/disk1")]
    assert document["network-interfaces"] == [body("/network-interfaces/eth0")]
    assert document["vsock"] == body("/vsock")


def test_a_config_file_has_drives_even_if_there_are_none() -> None:
    spec = replace(SPEC, disks=())
    assert config_file(spec, replace(LENT, disks=()))["drives"] == []

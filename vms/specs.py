"""A VM as the drivers see it."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings

from drives import services as drive_services
from drives.models import Drive
from images import services as image_services
from images.models import Kernel
from vms import warm
from vms.hypervisors.base import Disk, RateLimit, VmmSpec
from vms.models import VM
from vms.paths import make_vm_dir


def spec_of(vm: VM, kernel: Kernel) -> VmmSpec:
    """What a driver is told; makes the VM's directory. ``Broken`` where a drive is not there."""
    attachments = vm.attachments.all()
    alone = any(a.is_root and a.drive.image and a.drive.image.init == "none" for a in attachments)
    limit = RateLimit(_bytes(vm.disk_mib_s), vm.disk_iops)
    disks = tuple(Disk(a.drive.ref, _file(a.drive), a.read_only, limit) for a in attachments)
    words = [f"nexus.identity={a.drive.ref}" for a in attachments if a.is_root]
    words += ["nexus.init=none"] if alone else []
    boot_files = image_services.boot_files(kernel)
    return VmmSpec(
        vm_dir=make_vm_dir(vm),
        ref=vm.ref,
        slot=vm.slot,
        name=vm.name,
        vcpu_count=vm.vcpu_count,
        mem_size_mib=vm.mem_size_mib,
        kernel=boot_files.vmlinux,
        bzimage=boot_files.bzimage,
        initrd=boot_files.initrd,
        disks=disks,
        mac=vm.mac,
        kernel_args=(*words, *settings.NEXUS.guest_kernel_args.split()),
        network_limit=RateLimit(_bytes(vm.network_mib_s)),
    )


def _file(drive: Drive) -> Path:
    """The drive's file; of one that this start makes too, which is whole before a guest runs."""
    if warm.is_to_be_made(drive):
        return drive_services.file_of(drive)
    return drive_services.require_file(drive)


def _bytes(mib: int | None) -> int | None:
    return None if mib is None else mib << 20

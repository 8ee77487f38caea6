"""Small rows for tests: ``make_vm()`` and its like; every value that matters is an argument."""

from __future__ import annotations

import secrets
import time
from typing import Any

from builds.models import Build, KernelBuild, Template, TemplateVersion
from drives.models import Consistency, Drive, Snapshot
from images.models import Image, Kernel, Provider, Rootfs, VmmRelease
from images.services import host_arch, release_dir
from nexus_site.core.ids import readable_name
from vms.models import VM, Attachment, Pool, Sample, SnapshotPart, VMSnapshot, WarmTemplate
from vms.shape import USUAL
from vms.states import State
from vms.transitions import record_creation
from vms.warm import host_facts


def unique_name() -> str:
    return f"{readable_name()}-{secrets.token_hex(2)}"


def make_rootfs(distro: str = "alpine", version: str = "3.23", **values: Any) -> Rootfs:
    rootfs, _ = Rootfs.objects.get_or_create(
        distro=distro,
        version=version,
        arch="x86_64",
        defaults={
            "provider": "embedded",
            "format": "qcow2",
            "filename": f"rootfs/{distro}-{version}.qcow2",
            "sha256": "0" * 64,
            "size_bytes": 64 << 20,
        }
        | values,
    )
    return rootfs


def make_provider(**values: Any) -> Provider:
    defaults: dict[str, Any] = {"name": unique_name(), "type": Provider.Type.EMBEDDED}
    return Provider.objects.create(**defaults | values)


def make_kernel(**values: Any) -> Kernel:
    name = values.pop("name", unique_name())
    defaults: dict[str, Any] = {
        "version": "6.18.56-0-virt",
        "arch": "x86_64",
        "provider": "embedded",
        "directory": f"kernels/{name}",
        "sha256": "1" * 64,
        "size_bytes": 20 << 20,
    }
    return Kernel.objects.create(name=name, **defaults | values)


def make_image(**values: Any) -> Image:
    defaults: dict[str, Any] = {
        "name": unique_name(),
        "arch": "x86_64",
        "os_name": "Alpine Linux v3.23",
        "size_bytes": 8 << 30,
        "used_bytes": 60 << 20,
        "digest": "2" * 64,
        "agent_version": "0.1.0",
        "agent_digest": "3" * 64,
    }
    if "rootfs" not in values:
        values["rootfs"] = make_rootfs()
    return Image.objects.create(**defaults | values)


def make_drive(**values: Any) -> Drive:
    image = values.pop("image", None) or make_image()
    defaults: dict[str, Any] = {
        "name": unique_name(),
        "state": Drive.State.READY,
        "size_bytes": image.size_bytes,
    }
    return Drive.objects.create(image=image, **defaults | values)


def make_snapshot(**values: Any) -> Snapshot:
    drive = values.pop("drive", None) or make_drive()
    defaults: dict[str, Any] = {
        "name": unique_name(),
        "state": Snapshot.State.READY,
        "parent": drive.head,
        "size_bytes": drive.size_bytes,
        "consistency": Consistency.AT_REST,
    }
    snapshot = Snapshot.objects.create(drive=drive, **defaults | values)
    Drive.objects.filter(pk=drive.pk).update(head=snapshot)
    drive.head = snapshot
    return snapshot


def make_vm(*, root: bool = True, **values: Any) -> VM:
    """A VM with a root drive (unless ``root`` is false) and the first line of its history."""
    defaults: dict[str, Any] = {
        "name": unique_name(),
        "mac": "52:54:00:" + ":".join(f"{byte:02x}" for byte in secrets.token_bytes(3)),
    }
    vm = VM.objects.create(**defaults | values)
    record_creation(vm, "created")
    if root:
        Attachment.objects.create(vm=vm, drive=make_drive())
    return vm


def make_vm_snapshot(vm: VM, **values: Any) -> VMSnapshot:
    """A snapshot of all drives that the VM has now."""
    defaults: dict[str, Any] = {
        "name": unique_name(),
        "state": VMSnapshot.State.READY,
        "parent": vm.head,
        "consistency": Consistency.AT_REST,
        "vcpu_count": vm.vcpu_count,
        "mem_size_mib": vm.mem_size_mib,
    }
    snapshot = VMSnapshot.objects.create(vm=vm, **defaults | values)
    for attachment in vm.attachments.select_related("drive"):
        SnapshotPart.objects.create(
            vm_snapshot=snapshot,
            snapshot=make_snapshot(drive=attachment.drive),
            is_root=attachment.is_root,
            read_only=attachment.read_only,
        )
    VM.objects.filter(pk=vm.pk).update(head=snapshot)
    vm.head = snapshot
    return snapshot


def make_warm_template(**values: Any) -> WarmTemplate:
    """One that is ready, of a hidden VM with a checkpoint."""
    vm = make_vm(purpose=VM.Purpose.WARM)
    image = values.pop("image", None) or vm.attachments.get().drive.image
    facts = {
        "vcpu_count": 1,
        "mem_size_mib": 512,
        "hypervisor": "qemu",
        "hypervisor_version": "7.2",
        "accelerator": "tcg",
        "limits": [None, None, None],
    }
    checkpoint = make_vm_snapshot(vm, with_memory=True, memory_bytes=80 << 20)
    kernel = values.pop("kernel", None) or make_kernel()
    defaults: dict[str, Any] = {
        "key": secrets.token_hex(32),
        "facts": facts | host_facts(kernel.arch),
        "state": WarmTemplate.State.READY,
        "vm": vm,
        "checkpoint": checkpoint,
    }
    return WarmTemplate.objects.create(image=image, kernel=kernel, **defaults | values)


def make_pool(*, ready: int = 0, **values: Any) -> Pool:
    """A pool in which so many VMs wait, of as many."""
    image = values.pop("image", None) or make_image()
    defaults: dict[str, Any] = {"name": unique_name(), "size": ready, "shape": dict(USUAL)}
    pool = Pool.objects.create(image=image, **defaults | values)
    for _ in range(ready):
        vm = make_vm(root=False, purpose=VM.Purpose.POOL, pool=pool, state=State.READY)
        Attachment.objects.create(vm=vm, drive=make_drive(name=vm.name, image=image))
    return pool


def make_sample(vm: VM, **values: Any) -> Sample:
    """What the VM used in the last five seconds."""
    defaults: dict[str, Any] = {
        "at": int(time.time()),
        "seconds": 5.0,
        "cpu": 0.25,
        "memory_used": 100 << 20,
        "memory_total": 256 << 20,
        "disk_read": 0.0,
        "disk_write": 2048.0,
        "net_rx": 1024.0,
        "net_tx": 512.0,
        "vmm_cpu": 0.5,
        "vmm_memory": 150 << 20,
    }
    return Sample.objects.create(vm=vm, **defaults | values)


def make_template(**values: Any) -> Template:
    rootfs = values.pop("rootfs", None) or make_rootfs()
    template = Template.objects.create(**{"name": unique_name()} | values)
    TemplateVersion.objects.create(template=template, number=1, rootfs=rootfs)
    return template


def make_build(**values: Any) -> Build:
    template = values.pop("template", None) or make_template()
    defaults: dict[str, Any] = {"image_name": unique_name(), "agent_digest": "3" * 64}
    return Build.objects.create(template_version=template.current, **defaults | values)


def make_kernel_build(**values: Any) -> KernelBuild:
    defaults: dict[str, Any] = {
        "version": "6.1.192",
        "arch": "x86_64",
        "source": "/usr/src/linux-source-6.1.tar.xz",
        "fragment": "microvm 1",
        "fragment_text": "CONFIG_PVH=y\n",
        "jobs": 2,
    }
    return KernelBuild.objects.create(**defaults | values)


def make_release(version: str = "1.12.1", *, files: bool = False, **values: Any) -> VmmRelease:
    """A release of Firecracker, the default if it is the first; with ``files`` also its programs,
    which are empty."""
    arch = values.pop("arch", None) or host_arch()
    defaults: dict[str, Any] = {
        "arch": arch,
        "provider": "github",
        "directory": f"firecracker/{version}-{arch}",
        "sha256": "4" * 64,
        "jailer_sha256": "5" * 64,
        "size_bytes": 5 << 20,
        "source": f"https://example.org/firecracker-v{version}-{arch}.tgz",
        "verification": "sha256",
        "is_default": not VmmRelease.objects.filter(arch=arch, is_default=True).exists(),
    }
    release = VmmRelease.objects.create(version=version, **defaults | values)
    if files:
        directory = release_dir(release)
        directory.mkdir(parents=True)
        for name in ("firecracker", "jailer"):
            (directory / name).touch(mode=0o555)
    return release

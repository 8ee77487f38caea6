"""The rules about kernels: which one VMs start, and the files that a VMM is given."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

from django.db import transaction

from guest_agent.binary import agent_digest, agent_path
from images import initrd
from images.kernel_boots import KernelFiles
from images.kernel_files import facts_of
from images.models import Kernel
from images.providers.base import KernelOffer, KernelProvider
from images.providers.embedded import SOURCE, VERIFICATION, EmbeddedProvider
from images.providers.modules import ARCHIVE, kernel_modules
from images.services.places import assets_dir, host_arch
from nexus_site.core import events
from nexus_site.core.errors import Broken, NotFound


def ensure_default_kernel() -> Kernel:
    """The kernel that VMs start unless they name one; the embedded one on a new server.

    Raises ``Broken`` where the files of another that somebody chose are gone.
    """
    kernel = Kernel.objects.filter(arch=host_arch(), is_default=True).first()
    if kernel is not None and (kernel.provider != "embedded" or kernel_dir(kernel).exists()):
        return kernel
    offer, provider = _embedded_kernel()
    directory = assets_dir() / "kernels" / f"{offer.version}-{offer.arch}"
    provider.fetch_kernel(offer, directory)
    with transaction.atomic():
        Kernel.objects.filter(arch=offer.arch, is_default=True).update(is_default=False)
        kernel, _ = Kernel.objects.update_or_create(
            name=f"alpine-{offer.version}".replace(".", "-"),
            defaults={
                "version": offer.version,
                "arch": offer.arch,
                "provider": provider.name,
                "directory": str(directory.relative_to(assets_dir())),
                "source": SOURCE,
                "verification": VERIFICATION,
                "is_default": True,
                **facts_of(directory),
            },
        )
        events.append("kernel.created", kernel, version=kernel.version)
    return kernel


def kernel_dir(kernel: Kernel) -> Path:
    """Where the kernel's ``vmlinux`` and ``modules`` are."""
    return assets_dir() / kernel.directory


def ensure_initrd(kernel: Kernel) -> Path:
    """The initrd for ``kernel`` with the agent of this Nexus; made once for each pair."""
    path = initrd_path(kernel)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        modules = _modules(kernel, initrd.ROOT_MODULES, initrd.EXTRA_MODULES)
        initrd.build_initrd(path, agent_path(kernel.arch), modules)
    return path


def boot_files(kernel: Kernel) -> KernelFiles:
    """What the VMM is given. Raises ``Broken`` when the kernel's files are gone."""
    directory = kernel_dir(kernel)
    bzimage = directory / "bzImage"
    files = KernelFiles(
        directory / "vmlinux", bzimage if bzimage.exists() else None, initrd_path(kernel)
    )
    for path in (files.vmlinux, files.initrd):
        if not path.exists():
            raise Broken(
                f"A file of the kernel “{kernel.name}” is missing: {path.name}",
                hint="Download the kernel again.",
                code="kernel-missing",
            )
    return files


def hotplug_modules(kernel: Kernel) -> list[tuple[str, bytes]]:
    """(file name, contents) in load order: what the kernel needs for disks that are plugged."""
    return _modules(kernel, initrd.HOTPLUG_MODULES, ())


def _modules(
    kernel: Kernel, wanted: Sequence[str], optional: Sequence[str]
) -> list[tuple[str, bytes]]:
    """What has to be loaded; nothing for a kernel without modules, which has all built in."""
    directory = kernel_dir(kernel)
    if not (directory / ARCHIVE).exists():
        return []
    return initrd.select_modules(kernel_modules(directory), wanted, optional)


def initrd_path(kernel: Kernel) -> Path:
    """Where its initrd is; named by all that it is made of."""
    modules = " ".join((*initrd.ROOT_MODULES, *initrd.EXTRA_MODULES))
    parts = "\0".join((kernel.sha256, agent_digest(kernel.arch), modules))
    name = hashlib.sha256(parts.encode()).hexdigest()[:32]
    return assets_dir() / "initrd" / f"{name}.cpio"


def _embedded_kernel() -> tuple[KernelOffer, KernelProvider]:
    provider = EmbeddedProvider()
    for offer in provider.list_kernels():
        if offer.arch == host_arch():
            return offer, provider
    raise NotFound(
        f"No kernel for {host_arch()} is available.",
        hint="Install the embedded one with: ./nexus up",
        code="kernel-not-found",
    )

"""The rules about what VMs boot from: root file systems, kernels, images."""

from __future__ import annotations

import hashlib
import platform
from dataclasses import dataclass
from pathlib import Path

from django.conf import settings
from django.db import transaction

from guest_agent.binary import agent_digest, agent_path, agent_version
from images import initrd, providers
from images.digest import content_digest
from images.files import move_file, sweep
from images.models import Image, Kernel, Rootfs
from images.providers.base import KernelOffer, KernelProvider, RootfsOffer
from images.providers.embedded import EmbeddedProvider
from images.providers.modules import kernel_modules
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict, NotFound
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


@dataclass(frozen=True)
class BootFiles:
    """What a VMM is given to boot."""

    vmlinux: Path
    bzimage: Path | None
    initrd: Path


def assets_dir() -> Path:
    """Where downloaded and unpacked root file systems and kernels are kept."""
    return Path(settings.NEXUS.data_dir) / "assets"


def host_arch() -> str:
    """The architecture of guests that run here: ``x86_64`` or ``aarch64``."""
    machine = platform.machine()
    return {"arm64": "aarch64", "amd64": "x86_64"}.get(machine, machine)


def sweep_assets() -> None:
    """Remove what killed downloads left half done; run when a worker starts."""
    for directory in (assets_dir() / "rootfs", *(assets_dir() / "kernels").glob("*")):
        sweep(directory)


# Root file systems


def list_rootfs_offers() -> list[RootfsOffer]:
    """What the providers can deliver for this host's architecture."""
    offers = [offer for provider in providers.all_providers() for offer in provider.list()]
    return [offer for offer in offers if offer.arch == host_arch()]


def find_rootfs(distro: str, version: str) -> RootfsOffer:
    """The offer of a distribution's version; ``NotFound`` names what is available."""
    offers = list_rootfs_offers()
    for offer in offers:
        if (offer.distro, offer.version) == (distro.lower(), version):
            return offer
    available = ", ".join(f"{offer.distro} {offer.version}" for offer in offers) or "nothing"
    raise NotFound(
        f"There is no root file system “{distro} {version}”.",
        hint=f"Available: {available}",
        code="rootfs-not-found",
        extra={"available": [f"{offer.distro} {offer.version}" for offer in offers]},
    )


def installed_rootfs(distro: str, version: str) -> Rootfs | None:
    """The root file system kept here, if it is."""
    return Rootfs.objects.filter(distro=distro.lower(), version=version, arch=host_arch()).first()


@transaction.atomic
def download_rootfs(distro: str, version: str) -> Operation:
    """Fetch a root file system so that templates can use it."""
    offer = find_rootfs(distro, version)
    return open_operation(
        "rootfs.download",
        f"Fetch {offer.distro.capitalize()} {offer.version}",
        params={"distro": offer.distro, "version": offer.version},
    )


def ensure_rootfs(distro: str, version: str, run: Run) -> Rootfs:
    """The root file system, fetched now if it is not here; safe to repeat."""
    kept = installed_rootfs(distro, version)
    if kept is not None and rootfs_path(kept).exists():
        return kept
    offer = find_rootfs(distro, version)
    provider = providers.provider(offer.provider)
    directory = assets_dir() / "rootfs"
    directory.mkdir(parents=True, exist_ok=True)
    fetched = provider.fetch(offer, directory, lambda done, size: run.progress(done / max(size, 1)))
    with transaction.atomic():
        rootfs, _ = Rootfs.objects.update_or_create(
            distro=offer.distro,
            version=offer.version,
            arch=offer.arch,
            defaults={
                "provider": offer.provider,
                "format": fetched.format,
                "filename": str(fetched.path.relative_to(assets_dir())),
                "sha256": fetched.sha256,
                "size_bytes": fetched.size_bytes,
            },
        )
        events.append("rootfs.created", rootfs, distro=rootfs.distro, version=rootfs.version)
    return rootfs


def rootfs_path(rootfs: Rootfs) -> Path:
    """The archive as its publisher ships it."""
    return assets_dir() / rootfs.filename


# Kernels


def ensure_default_kernel() -> Kernel:
    """The kernel that VMs start unless they name one; the embedded one on a new server."""
    kernel = Kernel.objects.filter(arch=host_arch(), is_default=True).first()
    if kernel is not None and kernel_dir(kernel).exists():
        return kernel
    offer, provider = _embedded_kernel()
    directory = assets_dir() / "kernels" / f"{offer.version}-{offer.arch}"
    fetched = provider.fetch_kernel(offer, directory)
    with transaction.atomic():
        kernel, _ = Kernel.objects.update_or_create(
            name=f"alpine-{offer.version}".replace(".", "-"),
            defaults={
                "version": offer.version,
                "arch": offer.arch,
                "provider": provider.name,
                "directory": str(directory.relative_to(assets_dir())),
                "sha256": fetched.sha256,
                "size_bytes": fetched.size_bytes,
                "is_default": True,
            },
        )
        events.append("kernel.created", kernel, version=kernel.version)
    return kernel


def kernel_dir(kernel: Kernel) -> Path:
    """Where the kernel's ``vmlinux`` and ``modules`` are."""
    return assets_dir() / kernel.directory


def ensure_initrd(kernel: Kernel) -> Path:
    """The initrd for ``kernel`` with the agent of this Nexus; made once for each pair."""
    path = _initrd_path(kernel)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        modules = initrd.select_modules(kernel_modules(kernel_dir(kernel)))
        initrd.build_initrd(path, agent_path(kernel.arch), modules)
    return path


def boot_files(kernel: Kernel) -> BootFiles:
    """What the VMM is given. Raises ``Broken`` when the kernel's files are gone."""
    directory = kernel_dir(kernel)
    bzimage = directory / "bzImage"
    files = BootFiles(
        directory / "vmlinux", bzimage if bzimage.exists() else None, _initrd_path(kernel)
    )
    for path in (files.vmlinux, files.initrd):
        if not path.exists():
            raise Broken(
                f"A file of the kernel “{kernel.name}” is missing: {path.name}",
                hint="Download the kernel again.",
                code="kernel-missing",
            )
    return files


def _initrd_path(kernel: Kernel) -> Path:
    """Named by all that it is made of."""
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


# Images


def image_path(image: Image) -> Path:
    """The image's file: a sparse, read-only ext4 file system."""
    return Path(settings.NEXUS.data_dir) / "images" / f"{image.ref}.ext4"


def require_file(image: Image) -> Path:
    """The image's file. Raises ``Broken`` when it is missing or has another size."""
    path = image_path(image)
    if not path.exists() or path.stat().st_size != image.size_bytes:
        raise Broken(
            f"The file of the image “{image.name}” is missing or damaged.",
            hint="Delete the image and build it again.",
            code="image-damaged",
        )
    return path


def publish_image(
    image_id: NexusID, name: str, *, source: Path, rootfs: Rootfs, os_name: str
) -> Image:
    """Move ``source`` into the images and make its row; safe to repeat."""
    image = Image(
        id=image_id,
        name=name,
        rootfs=rootfs,
        arch=rootfs.arch,
        os_name=os_name,
        agent_version=agent_version(),
        agent_digest=agent_digest(rootfs.arch),
    )
    target = image_path(image)
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        move_file(source, target, 0o400)
    status = target.stat()
    image.size_bytes, image.used_bytes = status.st_size, status.st_blocks * 512
    image.digest = content_digest(target)
    with transaction.atomic():
        if not Image.objects.filter(pk=image_id).exists():
            image.save(force_insert=True)
            events.append("image.created", image, os_name=os_name)
    return image


@transaction.atomic
def delete_image(image: Image) -> Operation:
    """Delete an image. Raises ``Conflict`` with the drives that were made from it."""
    names = list(image.drives.values_list("name", flat=True)[:20])
    if names:
        raise Conflict(
            f"The image “{image.name}” is used by drives: {', '.join(names)}.",
            hint="Delete them first.",
            code="image-used",
            extra={"drives": names},
        )
    return open_operation(
        "image.delete", f"Delete image {image.name}", subject=image, params={"image": image.ref}
    )


def discard_image(image: Image) -> None:
    """Delete an image's row and file; safe to repeat."""
    path = image_path(image)
    with transaction.atomic():
        events.append("image.deleted", image)
        Image.objects.filter(pk=image.pk).delete()
    path.unlink(missing_ok=True)


# What workers run


def download_plan(operation: Operation) -> Plan:
    return [Step("fetch", "Fetch the root file system", _fetch, done=_fetched)]


def delete_plan(operation: Operation) -> Plan:
    return [Step("delete", "Delete the image", _delete)]


def _fetched(run: Run) -> str | None:
    kept = installed_rootfs(run.params["distro"], run.params["version"])
    return f"{kept} is there" if kept and rootfs_path(kept).exists() else None


def _fetch(run: Run) -> str:
    rootfs = ensure_rootfs(run.params["distro"], run.params["version"], run)
    run.keep(rootfs=rootfs.ref)
    return f"{rootfs}, {rootfs.size_bytes / 1e6:.0f} MB"


def _delete(run: Run) -> str | None:
    image = Image.objects.filter(pk=NexusID.parse(run.params["image"])).first()
    if image is None:
        return "it is gone already"
    discard_image(image)
    return None

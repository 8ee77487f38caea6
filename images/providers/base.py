"""What a provider of root file systems or kernels offers and delivers: plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from images.files import Progress, no_progress


@dataclass(frozen=True)
class RootfsOffer:
    """A root file system that a provider can deliver."""

    distro: str  # lower case: alpine
    version: str  # as people say it: 3.23
    arch: str  # x86_64 or aarch64
    provider: str
    filename: str
    size_bytes: int | None  # None: known only after fetching
    format: str  # one of images.formats.rootfs.FORMATS


@dataclass(frozen=True)
class FetchedRootfs:
    """A root file system as its publisher ships it, on this machine's disk."""

    path: Path
    sha256: str
    size_bytes: int
    format: str


@dataclass(frozen=True)
class KernelOffer:
    """A kernel that a provider can deliver; ``version`` is its release, as ``uname -r`` says."""

    version: str
    arch: str
    provider: str


@dataclass(frozen=True)
class FetchedKernel:
    """A kernel on this machine's disk: a directory with ``vmlinux`` and ``modules.zip``, and
    ``bzImage`` where the kernel came as one.

    ``sha256`` and ``size_bytes`` are those of ``vmlinux``. Read the modules with
    ``images.providers.modules.kernel_modules(directory)``.
    """

    version: str
    arch: str
    directory: Path
    vmlinux: Path
    sha256: str
    size_bytes: int


class RootfsProvider(Protocol):
    """A source of root file systems."""

    name: str

    def list(self) -> Sequence[RootfsOffer]:
        """What can be fetched now, for all architectures; nothing where it is not installed."""
        ...

    def fetch(
        self, offer: RootfsOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedRootfs:
        """Put the file into ``destination_dir``, whole or not at all; safe to repeat.

        Raises ``NotFound`` where the offer does not hold any more, ``Retryable``, ``Broken``.
        """
        ...


class KernelProvider(Protocol):
    """A source of kernels."""

    name: str

    def list_kernels(self) -> Sequence[KernelOffer]:
        """What can be fetched now; nothing where it is not installed."""
        ...

    def fetch_kernel(
        self, offer: KernelOffer, destination_dir: Path, progress: Progress = no_progress
    ) -> FetchedKernel:
        """Put the kernel into ``destination_dir``; safe to repeat.

        ``vmlinux`` is written last: where it is, the directory is complete.
        """
        ...

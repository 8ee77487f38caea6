"""The files of a kernel in its directory: what they say, and whether they are what they were."""

from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

from images.files import sha256_of, system_errors
from images.kernel_elf import compiler_of, extract_vmlinux
from images.providers.kernels.base import BZIMAGE, CONFIG, VMLINUX
from images.providers.modules import ARCHIVE
from nexus_site.core.errors import Invalid

MAX_COMPILER = 200


def facts_of(directory: Path) -> dict[str, str | int]:
    """What the row says about them: ``sha256``, ``size_bytes``, ``config_digest``, ``compiler``."""
    vmlinux, config = directory / VMLINUX, directory / CONFIG
    with system_errors():
        return {
            "sha256": sha256_of(vmlinux),
            "size_bytes": vmlinux.stat().st_size,
            "config_digest": sha256_of(config) if config.is_file() else "",
            "compiler": compiler_of(vmlinux.read_bytes())[:MAX_COMPILER],
        }


def problems(
    directory: Path, sha256: str, config_digest: str, check: Callable[[], None]
) -> list[str]:
    """What is wrong with the files; empty for nothing. Reads all of them.

    ``check`` is called between them and may raise to give up.
    """
    found = []
    if (actual := _sha256(directory / VMLINUX)) != sha256:
        found.append(f"vmlinux is {'another file' if actual else 'missing'}")
    check()
    if (actual := _sha256(directory / CONFIG)) != config_digest:
        found.append(f"config is {'another file' if actual else 'missing'}")
    if (directory / ARCHIVE).exists() and not _intact_archive(directory / ARCHIVE):
        found.append(f"{ARCHIVE} is damaged")
    check()
    if (directory / BZIMAGE).exists() and not _holds(directory / BZIMAGE, directory / VMLINUX):
        found.append(f"{BZIMAGE} holds another kernel")
    return found


def _sha256(path: Path) -> str:
    """The checksum of a file; empty where there is none."""
    with system_errors():
        return sha256_of(path) if path.is_file() else ""


def _intact_archive(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.testzip() is None
    except (zipfile.BadZipFile, OSError):
        return False


def _holds(bzimage: Path, vmlinux: Path) -> bool:
    try:
        return vmlinux.is_file() and extract_vmlinux(bzimage.read_bytes()) == vmlinux.read_bytes()
    except (Invalid, OSError):
        return False

"""What all providers of kernels have in common: plain values, and the files they deliver.

They speak the protocol of ``images.providers.releases``: ``unpack`` puts ``vmlinux`` into an empty
directory, and where there are any ``bzImage``, ``config`` and ``modules.zip``.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Sequence
from pathlib import Path

from images.files import system_errors
from images.kernel_elf import (
    ELF64_LITTLE_ENDIAN,
    MAX_CONFIG_BYTES,
    MAX_VMLINUX_BYTES,
    check_vmlinux,
    embedded_config,
    extract_vmlinux,
    release_of,
)
from images.kernel_packing import compression_of, unpack
from nexus_site.core.errors import Denied, Invalid, NotFound

VMLINUX, BZIMAGE, CONFIG = "vmlinux", "bzImage", "config"
VERSION = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,5}){1,3}(?:[.+~_-][A-Za-z0-9.+~_-]{1,40})?")
MODE = 0o400


def check_version_text(version: str) -> None:
    """Raise ``Invalid`` unless this is a version, or empty."""
    if version and not VERSION.fullmatch(version):
        raise Invalid(
            f"“{version[:40]}” is no version of a kernel.",
            hint="Versions look like 6.12.58 or 6.1.0-56-cloud-amd64.",
            code="kernel-version",
        )


def no_path(path: str) -> None:
    """Raise ``Invalid`` for a path where none is of use."""
    if path:
        raise Invalid(
            "A path is for the providers “local” and “distro”.",
            hint="Add --provider local or --provider distro, or leave the path out.",
            code="kernel-path",
        )


def check_allowed(path: Path, allowed: Sequence[Path]) -> None:
    """Raise ``Denied`` for what is not below an ``allowed`` directory, also behind links."""
    place = path.resolve()
    if not any(place.is_relative_to(one.resolve()) for one in allowed):
        raise Denied(
            f"Kernels may not be taken from {path}.",
            hint="Allowed are the directories in NEXUS_KERNEL_PATHS: "
            + ", ".join(map(str, allowed)),
            code="kernel-path",
        )


def no_kernel(version: str, arch: str, hint: str) -> NotFound:
    """The error for a kernel that a provider does not have."""
    what = f"no kernel {version}" if version else "no kernel"
    return NotFound(f"There is {what} for {arch} there.", hint=hint, code="kernel-not-found")


def read_bounded(path: Path, most: int = MAX_VMLINUX_BYTES) -> bytes:
    """What is in a regular file. Raises ``Invalid`` for something else, or one that is larger."""
    with system_errors():
        info = path.stat()
        if not stat.S_ISREG(info.st_mode):
            raise Invalid(f"{path} is no file.", code="kernel-path")
        if info.st_size <= most:
            return path.read_bytes()
    raise Invalid(
        f"“{path.name}” is larger than the {most >> 20} MiB that it may have.",
        code="kernel-too-large",
    )


def plain_kernel(data: bytes) -> bytes:
    """The ELF kernel in a file: itself, inside a bzImage, or packed. Raises ``Invalid``."""
    if not data.startswith(ELF64_LITTLE_ENDIAN) and compression_of(data) != "unknown":
        data = unpack(data, MAX_VMLINUX_BYTES)
    if data.startswith(b"\x7fELF"):
        check_vmlinux(data)
        return data
    return extract_vmlinux(data)


def put_kernel(data: bytes, directory: Path) -> None:
    """Write ``vmlinux``, and beside it the bzImage that it came in."""
    vmlinux = plain_kernel(data)
    with system_errors():
        _write(directory / VMLINUX, vmlinux)
        if not data.startswith(b"\x7fELF") and compression_of(data) == "unknown":
            _write(directory / BZIMAGE, data)


def put_config(text: bytes, directory: Path) -> None:
    """Keep the options that it was built with, as its publisher says."""
    with system_errors():
        _write(directory / CONFIG, text[:MAX_CONFIG_BYTES])


def complete(directory: Path) -> str:
    """The release of the ``vmlinux`` there; its own options are beside it where it has some."""
    vmlinux = read_bounded(directory / VMLINUX)
    if not (directory / CONFIG).exists() and (config := embedded_config(vmlinux)):
        put_config(config.encode(), directory)
    return release_of(vmlinux)


def _write(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    path.chmod(MODE)

"""The ELF `vmlinux` inside a distribution's compressed kernel.

Distributions ship a bzImage: a loader with the real kernel compressed inside. QEMU's
microvm machine and Firecracker start the uncompressed ELF directly ("PVH boot"), which
is quicker, so we take it out. The bzImage's setup header says where the payload lies:
see "The Linux/x86 Boot Protocol" in the kernel's documentation.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator

from images.kernel_packing import unpack
from nexus_site.core.errors import Invalid

MAX_VMLINUX_BYTES = 512 * 1024 * 1024

SETUP_MAGIC = b"HdrS"
SETUP_SECTS_AT, SETUP_MAGIC_AT, VERSION_AT, PAYLOAD_AT = 0x1F1, 0x202, 0x206, 0x248
FIRST_VERSION_WITH_PAYLOAD = 0x0208
SECTOR = 512

ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
PT_NOTE = 4
_BANNER = re.compile(
    rb"Linux version ([0-9][0-9A-Za-z.+_~-]{0,63}) \([^()\n]{0,80}\) "
    rb"\(((?:[^()\n]|\([^()\n]*\)){0,300})\)"
)
_CONFIG_START, _CONFIG_END = b"IKCFG_ST", b"IKCFG_ED"
MAX_CONFIG_BYTES = 2 << 20
XEN_ELFNOTE_PHYS32_ENTRY = 18


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The uncompressed ELF kernel inside a bzImage, checked to boot by PVH.

    Raises Invalid when this is no bzImage, its compression is unknown, it is damaged, or its
    ELF is not one that `check_vmlinux` accepts.
    """
    vmlinux = unpack(_payload(bzimage), MAX_VMLINUX_BYTES)
    check_vmlinux(vmlinux)
    return vmlinux


def check_vmlinux(vmlinux: bytes) -> None:
    """Raise Invalid unless this is a 64-bit ELF kernel with a PVH entry point."""
    if not vmlinux.startswith(ELF64_LITTLE_ENDIAN):
        raise Invalid("The kernel is not a 64-bit ELF file.", code="kernel-not-elf")
    try:
        bootable = any(
            name == b"Xen" and kind == XEN_ELFNOTE_PHYS32_ENTRY for name, kind in _notes(vmlinux)
        )
    except struct.error:
        raise Invalid("The kernel's ELF headers are damaged.", code="kernel-damaged") from None
    if not bootable:
        raise Invalid(
            "The kernel has no PVH entry point, so a microVM cannot start it.",
            hint="Use a kernel that was built with CONFIG_PVH=y.",
            code="kernel-without-pvh",
        )


def release_of(vmlinux: bytes) -> str:
    """The release (`uname -r`) that a kernel says it has. Raises Invalid where it says nothing."""
    if (found := _BANNER.search(vmlinux)) is None:
        raise Invalid("The kernel does not say which release it is.", code="kernel-damaged")
    return found[1].decode()


def compiler_of(vmlinux: bytes) -> str:
    """What it was compiled with, by its own words; empty where it says nothing."""
    found = _BANNER.search(vmlinux)
    return found[2].decode(errors="replace") if found else ""


def embedded_config(vmlinux: bytes) -> str:
    """The configuration inside a kernel that was built with CONFIG_IKCONFIG=y; else empty."""
    start, end = vmlinux.find(_CONFIG_START), vmlinux.find(_CONFIG_END)
    if not 0 <= start < end:
        return ""
    unpacker = zlib.decompressobj(wbits=31)
    try:
        packed = vmlinux[start + len(_CONFIG_START) : end]
        return unpacker.decompress(packed, MAX_CONFIG_BYTES).decode(errors="replace")
    except zlib.error:
        return ""


def _payload(bzimage: bytes) -> bytes:
    """The compressed part of a bzImage, found by its setup header."""
    if bzimage[SETUP_MAGIC_AT : SETUP_MAGIC_AT + 4] != SETUP_MAGIC:
        raise Invalid("The kernel is not a bzImage: its boot header is missing.", code="no-bzimage")
    try:
        (version,) = struct.unpack_from("<H", bzimage, VERSION_AT)
        offset, length = struct.unpack_from("<II", bzimage, PAYLOAD_AT)
    except struct.error:
        raise Invalid("The bzImage ends inside its header.", code="kernel-damaged") from None
    if version < FIRST_VERSION_WITH_PAYLOAD:
        raise Invalid("The bzImage is older than Linux 2.6.26.", code="kernel-too-old")
    start = ((bzimage[SETUP_SECTS_AT] or 4) + 1) * SECTOR + offset
    if start + length > len(bzimage):
        raise Invalid(
            "The bzImage is cut off: its payload is not all there.", code="kernel-damaged"
        )
    return bzimage[start : start + length]


def _notes(elf: bytes) -> Iterator[tuple[bytes, int]]:
    """Name and type of every note in the file's PT_NOTE segments."""
    (table,) = struct.unpack_from("<Q", elf, 32)
    entry_size, entries = struct.unpack_from("<HH", elf, 54)
    for index in range(entries):
        kind, _flags, start, _vaddr, _paddr, size = struct.unpack_from(
            "<IIQQQQ", elf, table + index * entry_size
        )
        if kind == PT_NOTE:
            yield from _notes_in(elf[start : start + size])


def _notes_in(segment: bytes) -> Iterator[tuple[bytes, int]]:
    at = 0
    while at + 12 <= len(segment):
        name_size, data_size, kind = struct.unpack_from("<III", segment, at)
        name = segment[at + 12 : at + 12 + name_size].rstrip(b"\0")
        yield name, kind
        at += 12 + _padded(name_size) + _padded(data_size)


def _padded(size: int) -> int:
    return (size + 3) & ~3

"""The ELF `vmlinux` inside a distribution's compressed kernel.

Distributions ship a bzImage: a loader with the real kernel compressed inside. QEMU's
microvm machine and Firecracker start the uncompressed ELF directly ("PVH boot"), which
is quicker, so we take it out. The bzImage's setup header says where the payload lies:
see "The Linux/x86 Boot Protocol" in the kernel's documentation.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from nexus_site.core.errors import Invalid

MAX_VMLINUX_BYTES = 512 * 1024 * 1024

SETUP_MAGIC = b"HdrS"
SETUP_SECTS_AT, SETUP_MAGIC_AT, VERSION_AT, PAYLOAD_AT = 0x1F1, 0x202, 0x206, 0x248
FIRST_VERSION_WITH_PAYLOAD = 0x0208
SECTOR = 512

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x5d\x00\x00": "lzma",
    b"BZh": "bzip2",
    b"\x89LZO": "lzo",
}

ELF64_LITTLE_ENDIAN = b"\x7fELF\x02\x01"
PT_NOTE = 4
XEN_ELFNOTE_PHYS32_ENTRY = 18


def extract_vmlinux(bzimage: bytes) -> bytes:
    """The uncompressed ELF kernel inside a bzImage, checked to boot by PVH.

    Raises Invalid when this is no bzImage, its compression is not gzip, it is damaged,
    or its ELF is not one that `check_vmlinux` accepts.
    """
    vmlinux = _decompress(_payload(bzimage))
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


def _decompress(payload: bytes) -> bytes:
    compression = next(
        (name for magic, name in COMPRESSIONS.items() if payload.startswith(magic)), "unknown"
    )
    if compression != "gzip":
        raise Invalid(
            f"The kernel is packed with {compression} compression; only gzip is supported.",
            hint="Use a kernel built with CONFIG_KERNEL_GZIP=y, or an uncompressed vmlinux.",
            code="kernel-compression",
        )
    unpacker = zlib.decompressobj(wbits=31)
    try:
        vmlinux = unpacker.decompress(payload, MAX_VMLINUX_BYTES)
    except zlib.error as error:
        raise Invalid(f"The kernel's payload is damaged: {error}.", code="kernel-damaged") from None
    if not unpacker.eof:
        raise Invalid("The kernel's payload is cut off or too large.", code="kernel-damaged")
    return vmlinux


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

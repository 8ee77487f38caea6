"""Unpack what kernels are packed with: all methods of the kernel's own Makefile, bounded in size.

Standard library and zstd read most; lz4 and lzo need the C libraries that distributions have
(``liblz4.so.1``, ``liblzo2.so.2``). All but gzip are followed by the size of what was packed.
"""

from __future__ import annotations

import bz2
import ctypes
import functools
import lzma
import struct
import zlib
from collections.abc import Callable
from typing import Protocol

from backports.zstd import ZstdDecompressor, ZstdError

from nexus_site.core.errors import Broken, Invalid

COMPRESSIONS = {
    b"\x1f\x8b": "gzip",
    b"\xfd7zXZ\x00": "xz",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"\x02\x21\x4c\x18": "lz4",
    b"\x5d\x00\x00": "lzma",
    b"BZh": "bzip2",
    b"\x89LZO\x00\r\n\x1a\n": "lzo",
}

_XZ_MEMORY = 256 << 20
_LZ4_BLOCK = 8 << 20  # of the legacy format that kernels are packed in
_LZO_BLOCK = 64 << 20
_DAMAGE = (zlib.error, lzma.LZMAError, ZstdError, OSError, EOFError, ValueError, struct.error)
# What lzop writes into its header and in front of every block: see lzop's conf.h.
_LZO_ADLER_OUT, _LZO_ADLER_IN, _LZO_CRC_OUT, _LZO_CRC_IN, _LZO_FILTER = 1, 2, 0x100, 0x200, 0x800
_LZO_NEWER = 0x0940


class _Unpacker(Protocol):
    @property
    def eof(self) -> bool: ...
    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def compression_of(payload: bytes) -> str:
    """The method's name by the first bytes; ``unknown`` for none of the kernel's."""
    return next(
        (name for magic, name in COMPRESSIONS.items() if payload.startswith(magic)), "unknown"
    )


def unpack(payload: bytes, most: int) -> bytes:
    """What was packed, at most ``most`` bytes.

    Raises ``Invalid`` for an unknown method, damage, or more; ``Broken`` without the library.
    """
    method = compression_of(payload)
    if method not in _METHODS:
        raise Invalid(
            f"The kernel is packed with {method} compression, which Nexus does not know.",
            hint="Use a kernel that was built with one of the kernel's own methods.",
            code="kernel-compression",
        )
    try:
        return _METHODS[method](payload, most)
    except (*_DAMAGE, MemoryError) as error:
        raise Invalid(
            f"The kernel's payload is damaged: {str(error) or method}.", code="kernel-damaged"
        ) from error


def _streamed(new: Callable[[], _Unpacker]) -> Callable[[bytes, int], bytes]:
    def unpacked(payload: bytes, most: int) -> bytes:
        unpacker = new()
        data = unpacker.decompress(payload, most)
        if not unpacker.eof:
            raise ValueError("it is cut off or too large")
        return data

    return unpacked


def _lz4(payload: bytes, most: int) -> bytes:
    """Blocks of the legacy format; each after its packed size."""
    library = _library("liblz4.so.1", "liblz4-1")
    parts, size, at = [], 0, 4
    room = ctypes.create_string_buffer(_LZ4_BLOCK)
    while at + 4 < len(payload):
        (length,) = struct.unpack_from("<I", payload, at)
        block = _piece(payload, at + 4, length)
        written = library.LZ4_decompress_safe(block, room, length, _LZ4_BLOCK)
        if written < 0:
            raise ValueError("a block of it does not unpack")
        at, size = at + 4 + length, size + written
        _check_size(size, most)
        parts.append(room.raw[:written])
    _check_promise(payload, size)
    return b"".join(parts)


def _lzo(payload: bytes, most: int) -> bytes:
    """What lzop writes; its own checksums are left to the ELF's checks."""
    library = _library("liblzo2.so.2", "liblzo2-2")
    at, flags = _lzo_header(payload)
    parts, size = [], 0
    while (length := struct.unpack_from(">I", payload, at)[0]) != 0:
        _check_size(size + length, min(most, size + _LZO_BLOCK))
        (packed,) = struct.unpack_from(">I", payload, at + 4)
        sums = [_LZO_ADLER_OUT, _LZO_CRC_OUT, *([_LZO_ADLER_IN, _LZO_CRC_IN] * (packed < length))]
        at += 8 + 4 * sum(bool(flags & kind) for kind in sums)
        block = _piece(payload, at, packed)
        parts.append(block if packed == length else _lzo_block(library, block, length))
        at, size = at + packed, size + length
    _check_promise(payload, size)
    return b"".join(parts)


def _lzo_header(payload: bytes) -> tuple[int, int]:
    """Where the first block begins, and the flags."""
    (version,) = struct.unpack_from(">H", payload, 9)
    newer = version >= _LZO_NEWER
    at = 17 if newer else 14  # behind versions, method and level
    (flags,) = struct.unpack_from(">I", payload, at)
    at += 8 if flags & _LZO_FILTER else 4
    at += 12 if newer else 8  # mode and times
    (name,) = struct.unpack_from("B", payload, at)
    return at + 1 + name + 4, flags


def _lzo_block(library: ctypes.CDLL, block: bytes, length: int) -> bytes:
    room, written = ctypes.create_string_buffer(length), ctypes.c_size_t(length)
    failed = library.lzo1x_decompress_safe(
        block, ctypes.c_size_t(len(block)), room, ctypes.byref(written), None
    )
    if failed or written.value != length:
        raise ValueError("a block of it does not unpack")
    return room.raw


def _piece(payload: bytes, at: int, length: int) -> bytes:
    if at + length > len(payload):
        raise ValueError("it is cut off")
    return payload[at : at + length]


def _check_size(size: int, most: int) -> None:
    if size > most:
        raise ValueError("it is too large")


def _check_promise(payload: bytes, size: int) -> None:
    """The kernel's Makefile writes the size (modulo 4 GiB) behind the packed data."""
    if struct.unpack("<I", payload[-4:])[0] != size:
        raise ValueError("it unpacks to another size than it says")


@functools.cache
def _library(name: str, package: str) -> ctypes.CDLL:
    try:
        return ctypes.CDLL(name)
    except OSError as error:
        raise Broken(
            f"This kernel cannot be unpacked: {name} is not on the server.",
            hint=f"Run `apt-get install -y {package}` as root, then try again.",
            code="library-missing",
        ) from error


_METHODS: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _streamed(lambda: zlib.decompressobj(wbits=31)),
    "xz": _streamed(lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY)),
    "lzma": _streamed(lambda: lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=_XZ_MEMORY)),
    "bzip2": _streamed(bz2.BZ2Decompressor),
    "zstd": _streamed(ZstdDecompressor),
    "lz4": _lz4,
    "lzo": _lzo,
}

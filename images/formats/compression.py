"""Unpack compressed streams in constant memory, and end bombs early.

The compression is found by its first bytes, never by a file's name. What is damaged or ends too
soon is ``Invalid`` with the code ``archive-damaged``; what unpacks to far more than an honest
archive could is ``Invalid`` with the code ``archive-too-large``.
"""

from __future__ import annotations

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from typing import Protocol

from backports.zstd import ZstdDecompressor, ZstdError

from nexus_site.core.errors import Invalid

MAX_RATIO = 200  # bytes out for each byte in; root file systems stay below 20
FREE_BYTES = 256 << 20  # as much as this may come out whatever went in
MAX_UNPACKED = 256 << 30

HEAD = 10  # bytes that tell the compression
_MAGIC = {"gz": b"\x1f\x8b\x08", "xz": b"\xfd7zXZ\0", "zst": b"\x28\xb5\x2f\xfd"}
_BZ2_BLOCKS = (bytes.fromhex("314159265359"), bytes.fromhex("177245385090"))
_IN, _OUT = 64 << 10, 256 << 10
_MAX_STREAMS = 2_000_000  # one after the other in a file: some tools write one for each entry
_XZ_MEMORY = 256 << 20
_DAMAGE = (zlib.error, lzma.LZMAError, ZstdError, OSError, EOFError, ValueError)


class Readable(Protocol):
    """Anything to read from one end to the other: fewer bytes than asked for are the last."""

    def read(self, size: int, /) -> bytes: ...


class _Unpacker(Protocol):
    """One compressed stream, as the standard library's decompressors are."""

    @property
    def eof(self) -> bool: ...
    @property
    def needs_input(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Gzip:
    """zlib's object with the manners of the others."""

    def __init__(self) -> None:
        self._zlib = zlib.decompressobj(16 + zlib.MAX_WBITS)
        self.needs_input = True

    @property
    def eof(self) -> bool:
        return self._zlib.eof

    @property
    def unused_data(self) -> bytes:
        return self._zlib.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        unpacked = self._zlib.decompress(self._zlib.unconsumed_tail + data, max_length)
        self.needs_input = not self._zlib.unconsumed_tail and len(unpacked) < max_length
        return unpacked


_UNPACKERS: dict[str, Callable[[], _Unpacker]] = {
    "gz": _Gzip,
    "xz": lambda: lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY),
    "bz2": bz2.BZ2Decompressor,
    "zst": ZstdDecompressor,
}


def compression_of(head: bytes) -> str:
    """``gz``, ``xz``, ``bz2`` or ``zst`` by the first ``HEAD`` bytes; ``""``: not compressed."""
    for name, magic in _MAGIC.items():
        if head.startswith(magic):
            return name
    if head[:3] == b"BZh" and head[3:4].isdigit() and head[4:10] in _BZ2_BLOCKS:
        return "bz2"
    return ""


class Unpacked:
    """What a compressed stream holds, to be read to its end.

    ``free_bytes`` may come out whatever went in, then ``MAX_RATIO`` holds; ``max_bytes`` always.
    """

    def __init__(
        self,
        source: Readable,
        compression: str,
        *,
        free_bytes: int = FREE_BYTES,
        max_bytes: int = MAX_UNPACKED,
    ) -> None:
        self._source, self._new = source, _UNPACKERS[compression]
        self._free_bytes, self._max_bytes = free_bytes, max_bytes
        self._bytes_in = self._bytes_out = self._streams = 0
        self._unpacker = self._new()
        self._waiting = b""  # packed bytes that the present unpacker has not had
        self._chunk, self._at = b"", 0

    def read(self, size: int, /) -> bytes:
        """The next ``size`` bytes, fewer at the end only."""
        parts = []
        while size > 0:
            if self._at == len(self._chunk):
                self._chunk, self._at = self._unpack(), 0
                if not self._chunk:
                    break
            part = self._chunk[self._at : self._at + size]
            self._at += len(part)
            size -= len(part)
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def _unpack(self) -> bytes:
        """Some more unpacked bytes; none at the end."""
        while True:
            if self._unpacker.eof and not self._next_stream():
                return b""
            data = b""
            if self._unpacker.needs_input:
                data, self._waiting = self._waiting or self._packed(), b""
                if not data:
                    raise damaged("its compressed data ends too soon")
            try:
                unpacked = self._unpacker.decompress(data, _OUT)
            except (*_DAMAGE, MemoryError) as error:
                raise damaged(f"it does not unpack ({error})") from error
            self._bytes_out += len(unpacked)
            self._check_limits()
            if unpacked:
                return unpacked

    def _next_stream(self) -> bool:
        """Streams may follow each other, zeros may follow the last."""
        rest = self._unpacker.unused_data.lstrip(b"\0")
        while not rest:
            packed = self._packed()
            if not packed:
                return False
            rest = packed.lstrip(b"\0")
        self._streams += 1
        if self._streams > _MAX_STREAMS:
            raise too_large(f"it is made of more than {_MAX_STREAMS} compressed streams")
        self._waiting, self._unpacker = rest, self._new()
        return True

    def _packed(self) -> bytes:
        data = self._source.read(_IN)
        self._bytes_in += len(data)
        return data

    def _check_limits(self) -> None:
        if self._bytes_out > self._max_bytes:
            raise too_large(f"it unpacks to more than {self._max_bytes} bytes")
        if self._bytes_out > max(self._free_bytes, MAX_RATIO * self._bytes_in):
            raise too_large(f"{self._bytes_in} bytes of it unpack to {self._bytes_out} and more")


def chunks(stream: Readable, size: int = 1 << 20) -> Iterator[bytes]:
    """All that is left of a stream."""
    while data := stream.read(size):
        yield data


def damaged(reason: str) -> Invalid:
    return Invalid(
        f"The archive is damaged: {reason}.",
        hint="Fetch it again and compare its checksum.",
        code="archive-damaged",
    )


def too_large(reason: str) -> Invalid:
    return Invalid(f"The archive is too large: {reason}.", code="archive-too-large")

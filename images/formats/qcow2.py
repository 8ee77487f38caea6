"""Read a qcow2 disk image (versions 2 and 3) without QEMU.

What one self-contained image needs is here: two-level tables, zero clusters and clusters
compressed with zlib. What would need other files or keys is refused by name: backing files,
external data, encryption. So are zstd clusters and extended L2 entries, which rootfs
publishers do not use.

The layout is the one of QEMU's docs/interop/qcow2.txt; all its numbers are big-endian.
"""

from __future__ import annotations

import functools
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from images.formats.disks import Disk
from nexus_site.core.errors import Invalid

MAGIC = b"QFI\xfb"

_HEADER = struct.Struct(">4sIQIIQIIQQIIQ")  # 72 bytes, all of version 2
_VERSION_3_SIZE = 104
_OFFSET = 0x00FF_FFFF_FFFF_FE00  # bits 9 to 55 of a table entry
_COMPRESSED = 1 << 62
_ALL_ZEROS = 1  # version 3: reads as zeros whatever else the entry says
_CLUSTER_BITS = range(9, 22)
_MAX_L1_BYTES = 32 << 20  # QEMU's own limit

# Incompatible features: a dirty image only has stale reference counts, which nobody here reads.
_DIRTY, _COMPRESSION_TYPE = 1 << 0, 1 << 3
_REFUSED_FEATURES = {
    1 << 1: "it is marked corrupt",
    1 << 2: "its data is in another file",
    1 << 4: "it uses extended L2 entries",
}
_ZLIB = 0


@dataclass(frozen=True)
class Header:
    """The facts of a qcow2 header that reading needs."""

    version: int
    cluster_bits: int
    size: int
    l1_entries: int
    l1_offset: int


class Qcow2Disk(Disk):
    """The guest's view of a qcow2 image. Takes over ``file`` and closes it.

    Raises ``Invalid`` for what it cannot read, when it is opened or at the damaged place.
    """

    def __init__(self, file: Disk) -> None:
        self._file = file
        header = read_header(file)
        self.size = header.size
        self._version = header.version
        self._cluster_bits = header.cluster_bits
        self._cluster_size = 1 << header.cluster_bits
        self._l1 = struct.unpack(
            f">{header.l1_entries}Q", file.read_at(header.l1_offset, header.l1_entries * 8)
        )
        # Both caches are bounded: at most 16 clusters of at most 2 MiB each.
        self._l2_table = functools.lru_cache(maxsize=16)(self._read_l2_table)
        self._inflated = functools.lru_cache(maxsize=16)(self._inflate)

    def extents(self) -> Iterator[tuple[int, int]]:
        for cluster in self._clusters():
            entry = self._entry(cluster)
            if entry & _COMPRESSED or (entry & _OFFSET and not self._is_zeros(entry)):
                start = cluster * self._cluster_size
                yield start, min(start + self._cluster_size, self.size)

    def _clusters(self) -> Iterator[int]:
        """The clusters that have an entry, in order."""
        per_table = self._cluster_size // 8
        count = -(-self.size // self._cluster_size)
        for table, host in enumerate(self._l1):
            if host & _OFFSET:
                yield from range(table * per_table, min((table + 1) * per_table, count))

    def close(self) -> None:
        self._file.close()

    def _read(self, offset: int, length: int) -> bytes:
        parts = []
        while length:
            cluster, start = divmod(offset, self._cluster_size)
            count = min(length, self._cluster_size - start)
            parts.append(self._read_cluster(cluster, start, count))
            offset, length = offset + count, length - count
        return b"".join(parts)

    def _read_cluster(self, cluster: int, start: int, count: int) -> bytes:
        entry = self._entry(cluster)
        if entry & _COMPRESSED:
            return self._inflated(entry)[start : start + count]
        host = entry & _OFFSET
        if not host or self._is_zeros(entry):
            return bytes(count)
        return self._read_host(self._aligned(host), start, count)

    def _is_zeros(self, entry: int) -> bool:
        return bool(entry & _ALL_ZEROS) and self._version >= 3

    def _read_host(self, host: int, start: int, count: int) -> bytes:
        """Bytes of a data cluster; what a file that ends inside it lacks is zeros."""
        present = max(0, min(count, self._file.size - host - start))
        if not present and host >= self._file.size:
            raise _damaged("a cluster lies behind the end of the file")
        return self._file.read_at(host + start, present) + bytes(count - present)

    def _entry(self, cluster: int) -> int:
        """The L2 entry of a cluster, 0 where there is none."""
        per_table = self._cluster_size // 8
        table, index = divmod(cluster, per_table)
        host = self._l1[table] & _OFFSET
        if not host:
            return 0
        (entry,) = struct.unpack_from(">Q", self._l2_table(self._aligned(host)), index * 8)
        return int(entry)

    def _read_l2_table(self, host: int) -> bytes:
        return self._file.read_at(host, self._cluster_size)

    def _inflate(self, entry: int) -> bytes:
        """One compressed cluster: its length counts 512-byte sectors from its first byte on."""
        length_shift = 62 - (self._cluster_bits - 8)
        host = entry & ((1 << length_shift) - 1)
        sectors = ((entry & ~_COMPRESSED & ~(1 << 63)) >> length_shift) + 1
        length = min(sectors * 512 - host % 512, self._file.size - host)
        inflater = zlib.decompressobj(-15)
        try:
            data = inflater.decompress(self._file.read_at(host, length), self._cluster_size)
        except zlib.error as error:
            raise _damaged(f"a compressed cluster does not unpack: {error}") from error
        if len(data) != self._cluster_size:
            raise _damaged("a compressed cluster is too short")
        return data

    def _aligned(self, host: int) -> int:
        if host % self._cluster_size:
            raise _damaged("a table points between two clusters")
        return host


def read_header(file: Disk) -> Header:
    """Check and read the header; ``Invalid`` says what stands in the way."""
    if file.size < _HEADER.size:
        raise _damaged("it ends inside its header")
    fields = _HEADER.unpack(file.read_at(0, _HEADER.size))
    magic, version, backing, _, cluster_bits, size, encryption, l1_entries, l1_offset = fields[:9]
    if magic != MAGIC or version not in (2, 3):
        raise _refused("it is not qcow2 version 2 or 3")
    if backing:
        raise _refused("it builds on another file (a backing file)")
    if encryption:
        raise _refused("it is encrypted")
    if cluster_bits not in _CLUSTER_BITS:
        raise _damaged(f"clusters of 2^{cluster_bits} bytes do not exist")
    if version == 3:
        _check_version_3(file)
    covered = l1_entries << (2 * cluster_bits - 3)
    if size > covered or l1_entries * 8 > _MAX_L1_BYTES:
        raise _damaged("its first table does not match its size")
    return Header(version, cluster_bits, size, l1_entries, l1_offset)


def _check_version_3(file: Disk) -> None:
    if file.size < _VERSION_3_SIZE:
        raise _damaged("it ends inside its header")
    (features,) = struct.unpack(">Q", file.read_at(72, 8))
    for bit, reason in _REFUSED_FEATURES.items():
        if features & bit:
            raise _refused(reason)
    if features & ~(_DIRTY | _COMPRESSION_TYPE):
        raise _refused(f"it uses features that are unknown here ({features:#x})")
    if features & _COMPRESSION_TYPE and file.read_at(_VERSION_3_SIZE, 1)[0] != _ZLIB:
        raise _refused("its clusters are compressed with zstd")


def _damaged(reason: str) -> Invalid:
    return Invalid(
        f"The qcow2 image is damaged: {reason}.",
        hint="Fetch it again and compare its checksum.",
        code="image-damaged",
    )


def _refused(reason: str) -> Invalid:
    return Invalid(
        f"The qcow2 image cannot be read: {reason}.",
        hint="Convert it with: qemu-img convert -O raw IMAGE IMAGE.raw",
        code="image-unsupported",
    )

"""Write qcow2 images by the book, for tests: every kind of cluster, both versions."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

COPIED = 1 << 63
COMPRESSED = 1 << 62


@dataclass(frozen=True)
class Cluster:
    """One guest cluster: a hole, marked as zeros, stored, or stored compressed."""

    data: bytes
    how: str = "stored"  # hole, zeros, stored, compressed


def make_qcow2(clusters: Sequence[Cluster], *, cluster_bits: int = 9, version: int = 3) -> bytes:
    """A qcow2 file whose guest view is the clusters' data, one after the other."""
    size = 1 << cluster_bits
    per_table = size // 8
    tables = -(-len(clusters) // per_table)
    l1_clusters = max(1, -(-tables * 8 // size))
    header = struct.pack(
        ">4sIQIIQIIQQIIQ",
        b"QFI\xfb", version, 0, 0, cluster_bits, len(clusters) * size, 0, tables, size, 0, 0, 0, 0,
    )  # fmt: skip
    if version == 3:
        header += struct.pack(">QQQII", 0, 0, 0, 4, 104)
    body = bytearray(header.ljust(size, b"\0") + bytes(l1_clusters * size))
    l2_at = len(body)
    body += bytes(tables * size)
    for table in range(tables):
        struct.pack_into(">Q", body, size + table * 8, COPIED | (l2_at + table * size))
    for number, cluster in enumerate(clusters):
        struct.pack_into(">Q", body, l2_at + number * 8, _store(body, cluster, cluster_bits))
    return bytes(body)


def _store(body: bytearray, cluster: Cluster, cluster_bits: int) -> int:
    """Append a cluster's data; its L2 entry."""
    if cluster.how == "hole":
        return 0
    if cluster.how == "zeros":
        return 1
    if cluster.how == "compressed":
        return _store_compressed(body, cluster.data, cluster_bits)
    body += bytes(-len(body) % (1 << cluster_bits))
    at = len(body)
    body += cluster.data
    return COPIED | at


def _store_compressed(body: bytearray, data: bytes, cluster_bits: int) -> int:
    deflater = zlib.compressobj(9, zlib.DEFLATED, -12)
    packed = deflater.compress(data) + deflater.flush()
    at = len(body)
    body += packed  # right behind whatever is there, as qemu-img does
    sectors = (at + len(packed) - 1) // 512 - at // 512
    return COMPRESSED | sectors << (62 - (cluster_bits - 8)) | at

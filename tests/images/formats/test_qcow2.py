"""Reading qcow2: every kind of cluster, and images that lie."""

from __future__ import annotations

import contextlib
import random
import struct
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from images.formats.disks import open_disk
from nexus_site.core.errors import Invalid, NotFound
from tests.images.formats.qcow2_images import Cluster, make_qcow2


def clusters_of(size: int, count: int, seed: int) -> list[Cluster]:
    """Every kind of cluster in random order; data that does and does not compress."""
    source = random.Random(seed)
    made = []
    for _ in range(count):
        how = source.choice(["hole", "zeros", "stored", "compressed"])
        if how in ("hole", "zeros"):
            made.append(Cluster(bytes(size), how))
        elif how == "compressed":
            made.append(Cluster(source.randbytes(7) * (size // 7) + bytes(size % 7), how))
        else:
            made.append(Cluster(source.randbytes(size), how))
    return made


@given(
    bits=st.sampled_from([9, 10, 12, 16]),
    count=st.integers(1, 140),
    seed=st.integers(0, 1000),
    reads=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=1, max_size=8),
)
@settings(max_examples=40, deadline=None)
def test_reads_what_was_written_at_any_offset(
    tmp_path_factory: pytest.TempPathFactory,
    bits: int,
    count: int,
    seed: int,
    reads: list[tuple[float, float]],
) -> None:
    clusters = clusters_of(1 << bits, count, seed)
    path = tmp_path_factory.mktemp("qcow2") / "disk.qcow2"
    path.write_bytes(make_qcow2(clusters, cluster_bits=bits))
    wanted = b"".join(cluster.data for cluster in clusters)
    with open_disk(path) as disk:
        assert disk.size == len(wanted)
        for start, part in reads:
            offset = int(start * len(wanted))
            length = int(part * (len(wanted) - offset))
            assert disk.read_at(offset, length) == wanted[offset : offset + length]


@pytest.mark.parametrize("version", [2, 3])
def test_extents_are_where_data_is(tmp_path: Path, version: int) -> None:
    clusters = clusters_of(512, 200, seed=9)
    if version == 2:
        clusters = [c for c in clusters if c.how != "zeros"]
    path = tmp_path / "disk.qcow2"
    path.write_bytes(make_qcow2(clusters, version=version))
    stored = [n for n, cluster in enumerate(clusters) if cluster.how in ("stored", "compressed")]
    with open_disk(path) as disk:
        assert list(disk.extents()) == [(n * 512, n * 512 + 512) for n in stored]


def test_extents_end_with_the_disk(tmp_path: Path) -> None:
    """Its last table has room for more clusters than there are."""
    path = tmp_path / "disk.qcow2"
    data = bytearray(make_qcow2([Cluster(b"x" * 512)] * 3))
    struct.pack_into(">Q", data, 24, 2 * 512 + 100)
    path.write_bytes(data)
    with open_disk(path) as disk:
        assert list(disk.extents())[-1] == (2 * 512, 2 * 512 + 100)


def test_version_2_has_no_zero_flag(tmp_path: Path) -> None:
    clusters = clusters_of(512, 70, seed=4)
    stored = [Cluster(c.data, "hole" if c.how == "zeros" else c.how) for c in clusters]
    path = tmp_path / "disk.qcow2"
    path.write_bytes(make_qcow2(stored, version=2))
    with open_disk(path) as disk:
        assert disk.read_at(0, disk.size) == b"".join(cluster.data for cluster in stored)


def test_a_file_that_does_not_begin_like_qcow2_is_raw(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"raw bytes")
    with open_disk(path) as disk:
        assert (disk.size, disk.read_at(4, 5)) == (9, b"bytes")
        with pytest.raises(Invalid, match="ends at 9"):
            disk.read_at(5, 5)


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"disk\.qcow2"):
        open_disk(tmp_path / "disk.qcow2")


@pytest.mark.parametrize(
    ("offset", "value", "reason"),
    [
        (4, struct.pack(">I", 4), "not qcow2 version 2 or 3"),
        (8, struct.pack(">Q", 104), "backing file"),
        (20, struct.pack(">I", 33), "do not exist"),
        (24, struct.pack(">Q", 1 << 60), "does not match its size"),
        (32, struct.pack(">I", 2), "encrypted"),
        (36, struct.pack(">I", 1 << 30), "does not match its size"),
        (72, struct.pack(">Q", 1 << 1), "marked corrupt"),
        (72, struct.pack(">Q", 1 << 2), "in another file"),
        (72, struct.pack(">Q", 1 << 4), "extended L2"),
        (72, struct.pack(">Q", 1 << 40), "unknown"),
    ],
)
def test_refuses_by_name_what_it_cannot_read(
    tmp_path: Path, offset: int, value: bytes, reason: str
) -> None:
    image = bytearray(make_qcow2([Cluster(b"x" * 512)]))
    image[offset : offset + len(value)] = value
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image)
    with pytest.raises(Invalid, match=reason):
        open_disk(path)


def test_refuses_zstd_but_not_the_mere_mention_of_zlib(tmp_path: Path) -> None:
    image = bytearray(make_qcow2([Cluster(b"x" * 512)]))
    image[72:80] = struct.pack(">Q", 1 << 3)
    path = tmp_path / "disk.qcow2"
    path.write_bytes(image)
    with open_disk(path) as disk:
        assert disk.read_at(0, 512) == b"x" * 512
    image[104] = 1
    path.write_bytes(image)
    with pytest.raises(Invalid, match="zstd") as refusal:
        open_disk(path)
    assert "qemu-img convert" in refusal.value.hint


def test_a_truncated_image_is_damaged(tmp_path: Path) -> None:
    whole = make_qcow2([Cluster(bytes([n]) * 512) for n in range(1, 5)])
    path = tmp_path / "disk.qcow2"
    path.write_bytes(whole[:-1024])
    with open_disk(path) as disk:
        assert disk.read_at(0, 1024) == b"\1" * 512 + b"\2" * 512
        with pytest.raises(Invalid, match="end of the file"):
            disk.read_at(1536, 512)


@given(
    damage=st.lists(st.tuples(st.integers(0, 2**16), st.integers(0, 255)), min_size=1, max_size=9),
    seed=st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_a_damaged_image_is_read_or_refused_and_nothing_else(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]], seed: int
) -> None:
    image = bytearray(make_qcow2(clusters_of(512, 20, seed)))
    for place, value in damage:
        image[place % len(image)] = value
    path = tmp_path_factory.mktemp("qcow2") / "disk.qcow2"
    path.write_bytes(image)
    with contextlib.suppress(Invalid), open_disk(path) as disk:
        length = min(disk.size, 1 << 20)
        assert len(disk.read_at(0, length)) == length

"""Whatever is not an honest drive is refused, and nothing of it is kept."""

from __future__ import annotations

import contextlib
import gzip
import resource
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from drives.transfers import incoming
from nexus_site.core.errors import Invalid, NexusError, Retryable
from tests.drives.transfers.conftest import BringIn
from tests.drives.transfers.corpus import WRONG
from tests.drives.transfers.drive_archives import (
    MIB,
    SIZE,
    checksum,
    disk,
    make_disk,
    manifest,
    packed,
    whole,
)
from tests.images.formats.qcow2_images import Cluster, make_qcow2
from tests.tiny_disk import can_mount, tiny_disk


def test_an_honest_drive_comes_in(bring_in: BringIn) -> None:
    drive = bring_in(whole())
    assert (drive.name, drive.state, drive.size_bytes) == ("travelled", "ready", SIZE)


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_refused_and_nothing_is_kept(name: str, bring_in: BringIn) -> None:
    data, code = WRONG[name]
    with pytest.raises(NexusError) as refusal:
        bring_in(data)
    assert refusal.value.code == code
    assert isinstance(refusal.value, Invalid | Retryable)


@pytest.mark.parametrize("part", range(1, 20))
def test_a_file_that_was_cut_short_is_refused(part: int, bring_in: BringIn) -> None:
    whole_file = whole()
    with pytest.raises(NexusError) as refusal:
        bring_in(whole_file[: len(whole_file) * part // 20])
    assert refusal.value.code in ("archive-damaged", "format-unknown")


@pytest.mark.parametrize("blocks", range(1, 14))
def test_an_archive_that_was_cut_short_before_it_was_packed_is_refused(
    blocks: int, bring_in: BringIn
) -> None:
    plain = manifest() + disk() + checksum()
    with pytest.raises(NexusError) as refusal:
        bring_in(packed(plain[: len(plain) * blocks // 14 // 512 * 512], end=b""))
    assert refusal.value.code in ("archive-damaged", "format-unknown")


@given(at=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), data=st.data())
@settings(max_examples=150, deadline=None)
def test_one_wrong_bit_never_gives_another_disk(
    tmp_path_factory: pytest.TempPathFactory, at: float, bit: int, data: st.DataObject
) -> None:
    place = tmp_path_factory.mktemp("flipped")
    plain = bytearray(manifest() + disk() + checksum() + bytes(1024))
    plain[int(at * len(plain))] ^= 1 << bit
    (place / "x").write_bytes(packed(bytes(plain), end=b""))
    (place / "out").touch()
    with contextlib.suppress(Invalid, Retryable):
        incoming.write_disk(place / "x", place / "out", incoming.look(place / "x"))
        # A bit that means nothing: a mode, an owner, a letter of the name.
        honest = make_disk(place / "honest", SIZE, 128 << 10)
        assert (place / "out").read_bytes() == honest.read_bytes()


def test_a_name_that_cannot_be_is_refused(bring_in: BringIn) -> None:
    with pytest.raises(Invalid, match="cannot be a name"):
        bring_in(whole(), name="Not A Name")


@pytest.mark.parametrize(
    "sizes", [{"size_mib": 1}, {"size_mib": 1 << 40}], ids=["too small", "too large"]
)
def test_a_size_that_cannot_be_is_refused(bring_in: BringIn, sizes: dict[str, int]) -> None:
    with pytest.raises(Invalid) as refusal:
        bring_in(whole(), **sizes)
    assert refusal.value.code in ("drive-too-small", "drive-size")


def full(monkeypatch: pytest.MonkeyPatch, *free: int) -> None:
    """From now on so much is free, then so much; the last for ever."""
    left = list(free)

    def disk_usage(_: object) -> SimpleNamespace:
        return SimpleNamespace(total=0, used=0, free=left.pop(0) if len(left) > 1 else left[0])

    monkeypatch.setattr("shutil.disk_usage", disk_usage)


def test_more_data_than_there_is_room_for_is_refused_before_it_is_read(
    bring_in: BringIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, 4000)
    with pytest.raises(Retryable) as refusal:
        bring_in(whole())
    assert refusal.value.code == "disk-full"


def test_a_qcow2_bomb_ends_where_the_room_ends(
    bring_in: BringIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every cluster of the disk is the same one of the file."""
    data = bytearray(make_qcow2([Cluster(b"x" * 65536), *[Cluster(b"", "hole")] * 1000],
                                cluster_bits=16))  # fmt: skip
    table = 2 * 65536
    data[table : table + 8 * 1000] = data[table : table + 8] * 1000
    full(monkeypatch, 8 * MIB)
    with pytest.raises(Retryable) as refusal:
        bring_in(bytes(data))
    assert refusal.value.code == "disk-full"


def test_a_packed_disk_is_unpacked_while_there_is_room(
    bring_in: BringIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch, 160 * MIB, 160 * MIB, 9 * MIB)
    with pytest.raises(Retryable) as refusal:
        bring_in(gzip.compress((b"\0" * 510 + b"\x55\xaa") * (MIB // 512), 1))
    assert refusal.value.code == "disk-full"


@pytest.mark.skipif(not can_mount(), reason="needs the right to mount")
@pytest.mark.parametrize("kind", ["archive", "raw"])
def test_a_disk_that_is_really_too_small(tmp_path: Path, kind: str) -> None:
    noise = (b"\xee" * 510 + b"\x55\xaa") + bytes(range(1, 256)) * 40_000
    size = 10 * MIB
    parts = ((0, len(noise)), (size, 0))
    source = tmp_path / "source"
    if kind == "archive":
        members = manifest(size_bytes=size), disk(parts, noise, size), checksum(parts, noise)
        source.write_bytes(packed(*members))
    else:
        source.write_bytes(noise)
    small = tmp_path / "small"
    small.mkdir()
    with tiny_disk(small, 4) as place:
        (place / "out").touch()
        with pytest.raises(NexusError) as refusal:
            incoming.write_disk(source, place / "out", incoming.look(source))
        assert refusal.value.code == "disk-full"
        assert (place / "out").stat().st_blocks * 512 < 4 * MIB


def test_looking_at_a_bomb_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    """8 TiB are declared, and come as well: zeros pack to almost nothing."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "bomb").write_bytes(WRONG["more data than any disk here has room for"][0])
    assert incoming.look(tmp_path / "bomb").size_bytes == 8 << 40
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 << 10

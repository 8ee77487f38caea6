"""Exported drives: what GNU tar makes of them, and that they come back as they were."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from backports import zstd

from drives.transfers import archive, incoming
from drives.transfers.archive import Manifest, pack
from images.files import data_ranges
from nexus_site.core.errors import Conflict
from tests.drives.transfers.drive_archives import ISLAND, MIB, make_disk

NOON = datetime(2026, 7, 29, 12, tzinfo=UTC)


def manifest_of(path: Path) -> Manifest:
    return Manifest(name="disk", size_bytes=path.stat().st_size, exported_at=NOON)


def exported(path: Path, to: Path) -> Path:
    with to.open("wb") as out:
        for piece in pack(path, manifest_of(path)):
            out.write(piece)
    return to


def used(path: Path) -> int:
    return path.stat().st_blocks * 512


def same(one: Path, other: Path) -> bool:
    """Whether two files have the same bytes; what is a hole in both is not read."""
    size = one.stat().st_size
    with one.open("rb") as a, other.open("rb") as b:
        places = {
            offset
            for file in (a, b)
            for start, end in data_ranges(file.fileno(), size)
            for offset in range(start - start % MIB, end, MIB)
        }
        pairs = ((os.pread(f.fileno(), MIB, at) for f in (a, b)) for at in places)
        return other.stat().st_size == size and all(x == y for x, y in pairs)


@pytest.fixture(
    params=[
        (1 * MIB, ()),
        (1 * MIB, (0,)),
        (8 * MIB, (0, 4 * MIB, 8 * MIB - 4096)),
        (300 * MIB, (64 << 10, 17 * MIB, 200 * MIB)),
        (5 << 30, (4 * MIB, 5 * (1 << 30) - 1 * MIB)),
    ],
    ids=["empty", "at the beginning", "up to the end", "islands", "larger than 4 GiB"],
)
def drive(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    size, islands = request.param
    return make_disk(tmp_path / "drive.img", size, *islands)


def test_gnu_tar_extracts_the_same_sparse_disk(drive: Path, tmp_path: Path) -> None:
    packed, out = exported(drive, tmp_path / "x.tar.zst"), tmp_path / "out"
    out.mkdir()
    extract(packed, out)
    assert sorted(path.name for path in out.iterdir()) == [
        "disk.img",
        "disk.img.sha256",
        "drive.json",
    ]
    assert (out / "disk.img").stat().st_size == drive.stat().st_size
    assert same(out / "disk.img", drive)
    assert used(out / "disk.img") <= used(drive) + (256 << 10)
    document = json.loads((out / "drive.json").read_text())
    assert document["name"] == "disk"
    assert document["size_bytes"] == drive.stat().st_size
    assert document["format"] == 1


def extract(packed: Path, out: Path) -> None:
    """With ``tar --zstd`` where there is a zstd, else through Python's."""
    if shutil.which("zstd"):
        subprocess.run(["tar", "--zstd", "-xSf", packed, "-C", out], check=True)
        return
    plain = packed.with_suffix("")
    with zstd.open(packed) as source, plain.open("wb") as target:
        shutil.copyfileobj(source, target)
    subprocess.run(["tar", "-xSf", plain, "-C", out], check=True)


def test_pythons_tarfile_reads_it_too(tmp_path: Path) -> None:
    drive = make_disk(tmp_path / "drive.img", 8 * MIB, 0, 4 * MIB, 8 * MIB - 4096)
    packed = exported(drive, tmp_path / "x.tar.zst")
    with tarfile.open(fileobj=io.BytesIO(zstd.decompress(packed.read_bytes()))) as tar:
        assert tar.getnames() == ["drive.json", "disk.img", "disk.img.sha256"]
        found = tar.extractfile("disk.img")
        assert found is not None
        assert found.read() == drive.read_bytes()


def test_the_checksum_is_that_of_the_stored_bytes(drive: Path, tmp_path: Path) -> None:
    plain = zstd.decompress(exported(drive, tmp_path / "x.tar.zst").read_bytes())
    at = plain.index(b"GNUSparseFile.0")
    size = int(plain[at + 124 : at + 135], 8)
    stored = plain[at + 512 : at + 512 + size]
    said = plain[plain.index(b"disk.img.sha256") + 512 :][:64]
    assert hashlib.sha256(stored).hexdigest().encode() == said


def test_it_comes_back_as_it_was(drive: Path, tmp_path: Path) -> None:
    packed = exported(drive, tmp_path / "x.tar.zst")
    again = tmp_path / "again.img"
    again.touch()
    found = incoming.look(packed)
    assert found.manifest == manifest_of(drive)
    assert found.size_bytes == incoming.write_disk(packed, again, found)
    assert again.stat().st_size == drive.stat().st_size
    assert same(again, drive)
    assert used(again) <= used(drive) + (256 << 10)


def test_holes_cost_nothing(tmp_path: Path) -> None:
    small = exported(make_disk(tmp_path / "s", 1 * MIB, 0), tmp_path / "s.tar.zst")
    large = exported(make_disk(tmp_path / "l", 1 << 40, 0), tmp_path / "l.tar.zst")
    assert large.stat().st_size < small.stat().st_size + 1000


def test_a_disk_of_a_tebibyte_comes_back(tmp_path: Path) -> None:
    """Its size fits into no field of a tar header."""
    end = (1 << 40) - 4096
    packed = exported(make_disk(tmp_path / "d", 1 << 40, 5 * MIB, end), tmp_path / "x.tar.zst")
    again = tmp_path / "again"
    again.touch()
    incoming.write_disk(packed, again, incoming.look(packed))
    with again.open("rb") as file:
        for offset, wanted in ((5 * MIB, ISLAND), (end, ISLAND), (9 * MIB, bytes(4096))):
            file.seek(offset)
            assert file.read(4096) == wanted
    assert again.stat().st_size == 1 << 40
    assert used(again) < 1 * MIB


def test_zeros_that_are_stored_come_back_as_holes(tmp_path: Path) -> None:
    drive = make_disk(tmp_path / "d", 64 * MIB, 0, data=bytes(64 * MIB))
    assert used(drive) == 64 * MIB
    packed = exported(drive, tmp_path / "x.tar.zst")
    again = tmp_path / "again"
    again.touch()
    incoming.write_disk(packed, again, incoming.look(packed))
    assert again.stat().st_size == 64 * MIB
    assert used(again) == 0


def test_stored_sizes_beyond_a_headers_field(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a drive with more than 8 GiB of data has."""
    drive = make_disk(tmp_path / "drive.img", 8 * MIB, 4 * MIB)
    monkeypatch.setattr("images.formats.tar_writer.MAX_SIZE", 1000)
    monkeypatch.setattr(archive, "MAX_FIELD", 1000)
    packed, out = exported(drive, tmp_path / "x.tar.zst"), tmp_path / "out"
    assert b" size=" in zstd.decompress(packed.read_bytes())
    out.mkdir()
    extract(packed, out)
    assert same(out / "disk.img", drive)
    again = tmp_path / "again"
    again.touch()
    incoming.write_disk(packed, again, incoming.look(packed))
    assert same(again, drive)


def test_a_map_has_bounds_however_many_holes_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archive, "_MAX_PARTS", 20)
    places = random.Random(3).sample(range(0, 256 * MIB, 128 << 10), 300)
    drive = make_disk(tmp_path / "d", 256 * MIB, *places)
    with drive.open("rb") as file:
        parts = archive._parts(file.fileno(), 256 * MIB)
    assert 1 < len(parts) <= 21
    again = tmp_path / "again"
    again.touch()
    packed = exported(drive, tmp_path / "x.tar.zst")
    incoming.write_disk(packed, again, incoming.look(packed))
    assert same(again, drive)


def test_small_holes_are_not_in_the_map(tmp_path: Path) -> None:
    drive = make_disk(tmp_path / "d", 1 * MIB, 0, 8192, 16384)
    with drive.open("rb") as file:
        assert archive._parts(file.fileno(), 1 * MIB) == [(0, 20480), (1 * MIB, 0)]


@pytest.mark.parametrize("change", ["write", "grow", "touch"])
def test_a_drive_that_is_written_to_meanwhile_is_not_exported(tmp_path: Path, change: str) -> None:
    drive = make_disk(tmp_path / "d", 8 * MIB, 0, data=random.Random(1).randbytes(4 * MIB))
    pieces: Iterator[bytes] = pack(drive, manifest_of(drive))
    done = [next(pieces)]
    if change == "touch":
        os.utime(drive)
    else:
        with drive.open("r+b") as file:
            file.seek(6 * MIB)
            file.write(b"late") if change == "write" else file.truncate(9 * MIB)
    with pytest.raises(Conflict, match="written to while it was exported") as refusal:
        done.extend(pieces)
    assert refusal.value.code == "drive-changed"
    half = tmp_path / "half.tar.zst"
    half.write_bytes(b"".join(done))
    again = tmp_path / "again"
    again.touch()
    with pytest.raises(Exception, match="too soon"):
        incoming.write_disk(half, again, incoming.look(half))


def test_a_drive_that_is_replaced_meanwhile_is_the_one_that_was_there(tmp_path: Path) -> None:
    """As a rollback or a resize does."""
    drive = make_disk(tmp_path / "d", 8 * MIB, 0, data=random.Random(1).randbytes(4 * MIB))
    before = drive.read_bytes()
    pieces = pack(drive, manifest_of(drive))
    done = [next(pieces)]
    make_disk(tmp_path / "other", 9 * MIB).replace(drive)
    done.extend(pieces)
    packed = tmp_path / "x.tar.zst"
    packed.write_bytes(b"".join(done))
    again = tmp_path / "again"
    again.touch()
    incoming.write_disk(packed, again, incoming.look(packed))
    assert again.read_bytes() == before

"""A drive of 4 GiB leaves and comes back in the memory that a small one takes."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from tests.drives.transfers.drive_archives import MIB

DATA = 256 * MIB
MOST = 128 * MIB  # half of the data; Python with its modules is a third of that

#: Runs in a process of its own; ``ru_maxrss`` would begin with that of the process it came from.
WORK = """
import sys
from datetime import UTC, datetime
from pathlib import Path
from drives.transfers import archive, incoming

what, drive, packed = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
if what == "export":
    size = drive.stat().st_size
    manifest = archive.Manifest(name="big", size_bytes=size, exported_at=datetime.now(UTC))
    with packed.open("wb") as out:
        out.writelines(archive.pack(drive, manifest))
else:
    incoming.write_disk(packed, drive, incoming.look(packed))
lines = Path("/proc/self/status").read_text().splitlines()
print(*(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")))
"""


def peak(what: str, drive: Path, packed: Path) -> int:
    """Bytes that the process took at most."""
    command = [sys.executable, "-c", WORK, what, drive, packed]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("piece", [1 * MIB, 16 << 10], ids=["large pieces", "many small pieces"])
def test_four_gibibytes_out_and_in_again(tmp_path: Path, piece: int) -> None:
    drive, packed, again = tmp_path / "drive", tmp_path / "packed", tmp_path / "again"
    count = DATA // piece
    places = [number * ((4 << 30) // count) for number in range(count)]
    with drive.open("wb") as out:
        for number, offset in enumerate(places):
            out.seek(offset)
            out.write(random.Random(number).randbytes(piece))
        out.truncate(4 << 30)
    assert peak("export", drive, packed) < MOST
    again.touch()
    assert peak("import", again, packed) < MOST
    assert again.stat().st_size == 4 << 30
    assert again.stat().st_blocks * 512 < DATA * 1.1
    with again.open("rb") as file:
        for number, offset in enumerate(places):
            file.seek(offset)
            assert file.read(piece) == random.Random(number).randbytes(piece)

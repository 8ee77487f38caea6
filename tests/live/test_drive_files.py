"""Drives that leave a real server and come back: as files, and straight from pipe to pipe."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from bench.server import Server
from drives.transfers import incoming
from tests.images.formats.qcow2_images import Cluster, make_qcow2

NEXUSCTL = Path(sys.executable).parent / "nexusctl"
CLUSTER = 2 << 20
SIZE = 4 << 30
BEGINNING = (b"\0" * 510 + b"\x55\xaa").ljust(CLUSTER, b"\1")  # as with a partition table
ISLANDS = {0: BEGINNING} | {
    number * CLUSTER: random.Random(number).randbytes(CLUSTER) for number in (7, 1000, 2047)
}


@pytest.fixture
def disk(tmp_path: Path) -> Path:
    """A disk of 4 GiB, nearly all of it holes."""
    clusters = [
        Cluster(ISLANDS[at]) if at in ISLANDS else Cluster(b"", "hole")
        for at in range(0, SIZE, CLUSTER)
    ]
    path = tmp_path / "disk.qcow2"
    path.write_bytes(make_qcow2(clusters, cluster_bits=21))
    return path


def unpacked(archive: Path) -> Path:
    disk = archive.with_suffix(".img")
    disk.touch()
    incoming.write_disk(archive, disk, incoming.look(archive))
    return disk


def test_from_file_to_drive_to_pipe_to_drive_to_file(
    server: Server, disk: Path, tmp_path: Path
) -> None:
    server.ctl("drive", "import", str(disk), "--name", "first")
    with subprocess.Popen(
        [NEXUSCTL, "drive", "export", "first", "-o", "-"], env=server.env, stdout=subprocess.PIPE
    ) as export:
        done = subprocess.run(
            [NEXUSCTL, "drive", "import", "-", "--name", "second"],
            env=server.env, stdin=export.stdout, capture_output=True, text=True, check=False,
        )  # fmt: skip
    assert (export.returncode, done.returncode) == (0, 0), done.stderr
    archive = tmp_path / "second.tar.zst"
    server.run("drive", "export", "second", "-o", str(archive))
    again = unpacked(archive)
    assert again.stat().st_size == SIZE
    assert again.stat().st_blocks * 512 == len(ISLANDS) * CLUSTER
    with again.open("rb") as file:
        for at, data in ISLANDS.items():
            file.seek(at)
            assert file.read(CLUSTER) == data
    assert list((server.data_dir / "assets/uploads").iterdir()) == []
    for name in ("first", "second"):
        server.ctl("drive", "delete", name, "--yes")


def test_an_export_that_nobody_waits_for_leaves_the_server_well(server: Server, disk: Path) -> None:
    server.ctl("drive", "import", str(disk), "--name", "abandoned")
    with subprocess.Popen(
        [NEXUSCTL, "drive", "export", "abandoned", "-o", "-"],
        env=server.env, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    ) as export:  # fmt: skip
        assert export.stdout is not None
        assert export.stdout.read(1 << 20)
        export.stdout.close()
        export.terminate()
    assert server.get("/v1/drives/abandoned")["state"] == "ready"
    server.ctl("drive", "delete", "abandoned", "--yes")

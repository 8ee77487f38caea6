"""What drives cost: ``./nexus bench drives [-n 20] [--clones 1000]``, as root.

On a btrfs and an XFS in files and on the plain file system, in one run, side by side in turn:
(1) a clone of a 10 GiB image with 150 MB of data against the bare command; (2) the first and the
last of a thousand clones; (3) ``POST /v1/drives`` of a server with that backend: the time to the
202 answer, and to the end of the operation, less the time that the backend itself took.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench.disks import loop_disk
from bench.server import ROOT, Server, running_server
from drives.storage import BACKENDS, Storage

IMAGE_BYTES, PIECES, PIECE = 10 << 30, 150, 1_000_000
EDGE = 20  # clones at the beginning and the end that are compared
DISK_MIB = 16 << 10  # sparse
API_TARGET = 0.025

# In the server's environment: an image that is there without having been built.
_ADD_IMAGE = """
from images.models import Image, Rootfs
rootfs = Rootfs.objects.create(distro="none", version="1", arch="x86_64",
    provider="bench", format="ext4", filename="bench", sha256="0" * 64, size_bytes=1)
image = Image.objects.create(name="bench", arch="x86_64", rootfs=rootfs, size_bytes=%d,
    used_bytes=%d, digest="0" * 64, agent_version="0", agent_digest="0" * 64)
print(image.ref)
"""


@dataclass(frozen=True)
class Target:
    """The bare command that a backend is compared with, and how much more it may take."""

    words: tuple[str, ...]
    factor: float
    file_system: str = ""  # to make; else the plain one

    @property
    def text(self) -> str:
        return " ".join(self.words)


TARGETS = {
    "btrfs": Target(("btrfs", "-q", "subvolume", "snapshot"), 1.5, "btrfs"),
    "reflink": Target(("cp", "--reflink=always"), 1.5, "xfs"),
    "copy": Target(("cp", "--sparse=always"), 1.2),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="./nexus bench drives", description=__doc__)
    parser.add_argument("-n", type=int, default=20, help="rounds (20)")
    parser.add_argument("--clones", type=int, default=1000, help="on btrfs and XFS (1000)")
    parser.add_argument("--directory", type=Path, help="where to work (that for temporary files)")
    options = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("Only root can mount the disks for this benchmark.")
    for backend in BACKENDS:
        target = TARGETS[backend.name]
        with _place(target, options.directory) as place:
            print(f"\n{backend.name}, on {target.file_system or 'the plain file system'}")
            _storage(backend, target, place, options.n, options.clones)
            _api(backend.name, place, options.n)


@contextlib.contextmanager
def _place(target: Target, directory: Path | None) -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="nexus-bench-", dir=directory) as scratch:
        if not target.file_system:
            yield Path(scratch)
            return
        with loop_disk(Path(scratch), target.file_system, DISK_MIB) as disk:
            yield disk


def _write_image(path: Path) -> None:
    """Data all over, holes between."""
    with path.open("wb") as file:
        for number in range(PIECES):
            file.seek(number * (IMAGE_BYTES // PIECES))
            file.write(os.urandom(PIECE))
        file.truncate(IMAGE_BYTES)
        os.fsync(file.fileno())


# (1) and (2): the backend


def _storage(backend: type[Storage], target: Target, place: Path, rounds: int, clones: int) -> None:
    storage = backend(place / "storage")
    _write_image(storage.image_path("image"))
    first = storage.clone_image("image", "first")  # on btrfs it makes the copy that others share
    source = first.parent if backend.name == "btrfs" else storage.image_path("image")
    bare, ours = [], []
    for number in range(rounds):
        copy = place / f"bare-{number}"
        bare.append(_timed(partial(_run, *target.words, source, copy)))
        ours.append(_timed(partial(storage.clone_image, "image", f"n-{number}")))
        if backend.name == "copy":
            copy.unlink()
            storage.delete(f"n-{number}")
            os.sync()  # else one pays for what the other has left to write
    ratio = statistics.median(ours) / statistics.median(bare)
    print(f"  {target.text:<34} {_figures(bare)}")
    print(f"  clone_image                        {_figures(ours)}")
    print(f"  {ratio:.2f}x   target: {target.factor}x")
    if backend.name != "copy":
        names = [f"m-{number}" for number in range(clones)]
        many = [_timed(partial(storage.clone_image, "image", name)) for name in names]
        print(f"  first {EDGE} of {clones} clones            {_figures(many[:EDGE])}")
        print(f"  last {EDGE}                            {_figures(many[-EDGE:])}")


def _run(*words: str | Path) -> None:
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)


# (3): the API


def _api(backend: str, place: Path, rounds: int) -> None:
    with running_server(place) as server:
        found = server.get("/v1/storage")["backend"]
        assert found == backend, f"the server uses {found}"
        image = _add_image(server)
        server.post("/v1/drives?wait=60", image=image)  # not measured: the first of its image
        answers, over = [], []
        for _ in range(rounds):
            answer, seconds = _answered(server, "/v1/drives", image)
            server.get(f"/v1/operations/{answer['id']}?wait=60")
            answers.append(seconds)
            ended, seconds = _answered(server, "/v1/drives?wait=60", image)
            assert ended["state"] == "succeeded", ended
            over.append(seconds - sum(step["seconds"] for step in ended["steps"]))
        target = f"   target: {API_TARGET * 1000:.0f} ms"
        print(f"  POST /v1/drives to the answer      {_figures(answers)}{target}")
        print(f"  to the end, over the backend's own {_figures(over)}")


def _add_image(server: Server) -> str:
    used = PIECES * PIECE
    done = subprocess.run(
        [sys.executable, ROOT / "manage.py", "shell", "-v", "0", "-c",
         _ADD_IMAGE % (IMAGE_BYTES, used)],
        env=server.env, check=True, capture_output=True, text=True,
    )  # fmt: skip
    image = done.stdout.split()[-1]
    path = server.data_dir / "images" / f"{image}.ext4"
    path.parent.mkdir(exist_ok=True)
    _write_image(path)
    return image


def _answered(server: Server, path: str, image: str) -> tuple[dict[str, Any], float]:
    began = time.monotonic()
    answer = server.post(path, image=image)
    return answer, time.monotonic() - began


def _timed(call: Callable[[], object]) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _figures(seconds: list[float]) -> str:
    median, least, most = statistics.median(seconds), min(seconds), max(seconds)
    return f"{median * 1000:8.2f} ms ({least * 1000:.2f}-{most * 1000:.2f})"


if __name__ == "__main__":
    main()

"""What images cost: ``./nexus bench build [-n 5] [--size 1000] [--directory DIR]``.

Side by side, in turn: (1) packing a tree against a plain ``mke2fs -d`` of the same content;
(2) a download through the pipeline from a server on this machine against ``curl | sha256sum``,
with the peak of its memory; (3) the second build of an unchanged template, as a user asks for it.
"""

from __future__ import annotations

import argparse
import functools
import http.server
import os
import shlex
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path

from bench.server import running_server
from builds.packing import pack_ext4
from images.entries import Kind
from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from images.trees import Tree

IMAGE_MIB = 8192
_DOWNLOAD = """
import resource, sys
from pathlib import Path
from images.downloads import download
download(sys.argv[1], Path(sys.argv[2]), sha256=sys.argv[3])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="./nexus bench build", description=__doc__)
    parser.add_argument("-n", type=int, default=5, help="rounds (5)")
    parser.add_argument("--size", type=int, default=1000, metavar="MB", help="to download (1000)")
    parser.add_argument(
        "--directory",
        type=Path,
        help="where to pack (the data directory). Repeated runs on an ext4 without a journal "
        "wait for inodes deleted a minute ago; on others they do not",
    )
    options = parser.parse_args()
    with running_server() as server:
        print("Building an image (not measured)…", flush=True)
        server.ctl("image", "from-rootfs", "alpine", "3.23")
        template = server.get("/v1/templates")["items"][0]["name"]
        again = [timed(lambda: server.ctl("build", "trigger", template)) for _ in range(options.n)]
        image = next((server.data_dir / "images").glob("*.ext4"))
        with tempfile.TemporaryDirectory(dir=options.directory or server.data_dir) as scratch:
            _packing(image, Path(scratch), options.n)
        with tempfile.TemporaryDirectory(dir=server.data_dir) as scratch:
            _downloading(Path(scratch), options.size, options.n)
    print(f"unchanged template, second build  {_figures(again)}   target: under 1 s")


def _packing(image: Path, scratch: Path, rounds: int) -> None:
    tree = Tree.create(scratch / "tree")
    with open_disk(image) as disk:
        tree.fill(Ext4(disk).items())
    plain = _plain_copy(tree, scratch / "plain")
    out = scratch / "packed.ext4"
    pack, bare, laid_out = [], [], []
    for _ in range(rounds):
        bare.append(timed(lambda: _mke2fs(plain, out)))
        laid_out.append(timed(lambda: _lay_out_and_mke2fs(plain, scratch / "laid-out", out)))
        pack.append(timed(lambda: _pack(tree, out)))
        out.unlink()
    ratio = statistics.median(pack) / statistics.median(bare)
    print(f"\n{len(tree)} entries into {IMAGE_MIB} MiB, median of {rounds} (least-most), in s")
    print(f"mke2fs -d                         {_figures(bare)}")
    print(f"files linked into place, the same {_figures(laid_out)}")
    print(f"pack_ext4                         {_figures(pack)}   {ratio:.2f}x, target: 2x\n")


def _plain_copy(tree: Tree, directory: Path) -> Path:
    """The tree's names and contents as ordinary files: what ``mke2fs -d`` is given."""
    for entry in tree:
        path = directory / entry.path
        if entry.kind is Kind.DIRECTORY:
            path.mkdir(parents=True)
        elif entry.kind is Kind.SYMLINK:
            path.symlink_to(entry.target)
        elif entry.kind is Kind.FILE:
            path.hardlink_to(tree.content_path(entry))
    return directory


def _mke2fs(directory: Path, out: Path) -> None:
    out.unlink(missing_ok=True)
    command: list[str | Path] = ["mke2fs", "-q", "-F", "-t", "ext4", "-d", directory, out]
    subprocess.run([*command, f"{IMAGE_MIB}M"], check=True, capture_output=True)


def _lay_out_and_mke2fs(plain: Path, directory: Path, out: Path) -> None:
    """With what has to come before and after, where the files do not lie in order already."""
    subprocess.run(["cp", "-al", plain, directory], check=True)
    _mke2fs(directory, out)
    shutil.rmtree(directory)


def _pack(tree: Tree, out: Path) -> None:
    out.unlink(missing_ok=True)
    pack_ext4(
        tree, out, IMAGE_MIB, fs_uuid=uuid.UUID(int=1), hash_seed=uuid.UUID(int=2), timestamp=1
    )


def _downloading(scratch: Path, size_mb: int, rounds: int) -> None:
    served = scratch / "served"
    served.mkdir()
    with (served / "asset").open("wb") as asset:
        for _ in range(size_mb):
            asset.write(os.urandom(1_000_000))
    digest = subprocess.run(
        ["sha256sum", served / "asset"], check=True, capture_output=True, text=True
    ).stdout.split()[0]
    handler = functools.partial(_Quiet, directory=str(served))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/asset"
        curl, ours, memory = [], [], []
        target = scratch / "fetched"
        for _ in range(rounds):
            curl.append(timed(lambda: _curl(url, target)))
            target.unlink()
            took, peak = _ours(url, target, digest)
            target.unlink()
            ours.append(took)
            memory.append(peak)
        server.shutdown()
    share = statistics.median(curl) / statistics.median(ours)
    print(f"{size_mb} MB from this machine, median of {rounds} (least-most), in s")
    print(f"curl | tee | sha256sum            {_figures(curl)}")
    print(f"pipeline                          {_figures(ours)}   {share:.0%} of it; target: 60 %")
    print(f"peak memory of the pipeline       {max(memory)} MB   target: under 100 MB\n")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


def _curl(url: str, target: Path) -> None:
    """The same work by hand: on the disk, and its checksum."""
    words = f"curl -s {shlex.quote(url)} | tee {shlex.quote(str(target))} | sha256sum"
    subprocess.run(
        ["sh", "-c", f"{words} && sync {shlex.quote(str(target))}"],
        check=True,
        stdout=subprocess.DEVNULL,
    )


def _ours(url: str, target: Path, digest: str) -> tuple[float, int]:
    """Seconds in a process of its own, and the most memory it took, in MB."""
    command: list[str | Path] = [sys.executable, "-c", _DOWNLOAD, url, target, digest]
    began = time.monotonic()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return time.monotonic() - began, int(done.stdout)


def timed(call: Callable[[], object]) -> float:
    """Seconds that ``call`` takes."""
    began = time.monotonic()
    call()
    return time.monotonic() - began


def _figures(seconds: list[float]) -> str:
    return f"{statistics.median(seconds):6.2f} ({min(seconds):.2f}-{max(seconds):.2f})"


if __name__ == "__main__":
    main()

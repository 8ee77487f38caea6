"""One run of a command in level 1, from the cache to its results."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.rig import build, job
from tests.rig.cache import Cache, default_directory
from tests.rig.machine import Ended, Listener, Machine
from tests.rig.machine import run as run_machine

#: Seconds that level 1 gets, beside those of its command, to boot and to end.
OVERHEAD = 300


def say(words: str) -> None:
    print(f"rig: {words}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str],
    *,
    directory: Path,
    limit: int,
    tree: Path = build.ROOT,
    listen: Listener = lambda data: None,
    cpus: int = 1,
    memory_mib: int = 8192,
) -> Ended:
    """Run a command in level 1, in the project's tree, for at most ``limit`` seconds.

    ``directory`` gets ``output.log`` and ``console.log`` while it runs, and ``results``: what
    the command left in /job/results.
    """
    shutil.rmtree(directory / "results", ignore_errors=True)
    directory.mkdir(parents=True, exist_ok=True)
    with (
        Cache(default_directory()).entry(build.key(), lambda out: build.build(out, say)) as made,
        tempfile.TemporaryDirectory(prefix="nexus-rig-") as scratch,
    ):
        disk = Path(scratch) / "job.ext4"
        job.make_disk(disk, tree, command, limit)
        kernel, root = made / "vmlinuz", made / "root.ext4"
        machine = Machine(kernel, root, disk, directory, cpus=cpus, memory_mib=memory_mib)
        ended = run_machine(machine, limit + OVERHEAD, listen)
        job.fetch_results(disk, directory)
        return ended

"""``python -m tests.rig build`` and ``python -m tests.rig run -- COMMAND``, for people."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from nexus_site.core.errors import NexusError
from tests.rig import build, runs
from tests.rig.cache import Cache, default_directory

NO_STATUS = 125


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that no QEMU stays behind
    options = _parse()
    try:
        return _build() if options.do == "build" else _run(options)
    except NexusError as error:
        print(*filter(None, (error.text, error.detail, error.hint)), sep="\n", file=sys.stderr)
        return 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.rig", description=runs.__doc__)
    commands = parser.add_subparsers(dest="do", required=True)
    commands.add_parser("build", help="make level 1, unless it is in the cache; needs root")
    run = commands.add_parser("run", help="run a command in level 1 and exit with its status")
    run.add_argument("--tree", type=Path, default=build.ROOT, help="the project (default: here)")
    run.add_argument("--keep", type=Path, help="a directory for logs and /job/results")
    run.add_argument("--limit", type=int, default=900, help="seconds (default: %(default)s)")
    run.add_argument("--memory", type=int, default=8192, help="MiB (default: %(default)s)")
    run.add_argument("--cpus", type=int, default=1)
    run.add_argument("command", nargs="+")
    return parser.parse_args()


def _build() -> int:
    began = time.monotonic()
    with Cache(default_directory()).entry(
        build.key(), lambda out: build.build(out, runs.say)
    ) as at:
        print(at)
    runs.say(f"ready ({time.monotonic() - began:.0f} s)")
    return 0


def _run(options: argparse.Namespace) -> int:
    with tempfile.TemporaryDirectory(prefix="nexus-rig-") as scratch:
        ended = runs.run(
            options.command,
            directory=options.keep or Path(scratch),
            limit=options.limit,
            tree=options.tree.resolve(),
            listen=_show,
            cpus=options.cpus,
            memory_mib=options.memory,
        )
    if ended.status is None:
        print(ended.problem, file=sys.stderr)
        return NO_STATUS
    return ended.status


def _show(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    sys.exit(main())

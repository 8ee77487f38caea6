"""The command line of ``./nexus``."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from front_door.down import down
from front_door.paths import PYTHON, ROOT, extend_path
from front_door.server import Server
from front_door.steps import Terminal, step
from front_door.tools import (
    ensure_browser,
    ensure_file_systems,
    ensure_kernel_tools,
    ensure_mmdebstrap,
    ensure_network_tools,
    ensure_ssh_keygen,
)
from front_door.up import prepare, up
from nexus_site.core.errors import NexusError, as_nexus_error
from nexus_site.daemon import DEFAULT_PORT, default_data_dir

USAGE_ERROR = 2
INTERRUPTED = 130

# Two workers for two cores; tests that boot VMs or drive the browser share one group, so
# that a single worker runs them one after the other and emulated guests are not starved.
# tests/conftest.py puts the long ones first, so xdist is not to order them by itself.
WHOLE_SUITE = ("-n", "2", "--dist", "loadgroup", "--no-loadscope-reorder", "--durations=15")


def main(argv: Sequence[str]) -> int:
    """Run one command; returns the exit code: 0 done, 1 failed, 2 wrong usage."""
    options, rest = _parse(argv)
    extend_path()
    try:
        return _run(options, rest)
    except (NexusError, OSError) as error:
        _complain(as_nexus_error(error))
        return 1
    except KeyboardInterrupt:
        print("\nStopped.", file=sys.stderr)
        return INTERRUPTED


def _parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    parser = argparse.ArgumentParser(
        prog="./nexus", description="Sets up, starts, stops and tests Nexus in this clone."
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--data-dir",
        type=Path,
        default=default_data_dir(),
        help="where Nexus keeps its state (NEXUS_DATA_DIR; default: %(default)s)",
    )
    run = commands.add_parser("up", parents=[place], help="set up and start Nexus")
    run.add_argument("--detach", action="store_true", help="return when Nexus serves")
    run.add_argument("--port", type=int, default=os.environ.get("NEXUS_PORT", DEFAULT_PORT))
    run.add_argument("--no-vm", action="store_true", help="do not create the VM hello")
    stop = commands.add_parser("down", parents=[place], help="stop Nexus; VMs run on")
    stop.add_argument("--vms", action="store_true", help="stop the VMs as well")
    commands.add_parser("test", help="run the tests: ./nexus test [pytest arguments]")
    bench = commands.add_parser("bench", help="measure: ./nexus bench NAME [arguments]")
    bench.add_argument("name", choices=_benchmarks(), metavar="NAME", help="%(choices)s")
    # What follows `test` and `bench NAME` is for pytest and the benchmark, untouched.
    own = {"test": 1, "bench": 2}.get(argv[0] if argv else "", len(argv))
    return parser.parse_args(argv[:own]), list(argv[own:])


def _benchmarks() -> list[str]:
    files = ROOT.glob("bench/[a-z]*.py")
    return sorted(file.stem for file in files if "\ndef main(" in file.read_text())


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    if options.command == "test":
        return _test(rest)
    if options.command == "bench":
        prepare(Terminal())
        return _call([PYTHON, "-m", f"bench.{options.name}", *rest])
    data_dir = options.data_dir.expanduser().absolute()
    if options.command == "down":
        return down(Server(data_dir, DEFAULT_PORT), with_vms=options.vms)
    server = Server(data_dir, options.port)
    return up(server, detach=options.detach, with_vm=not options.no_vm)


def _test(arguments: list[str]) -> int:
    terminal = Terminal()
    prepare(terminal, "test")
    with step(terminal, "Chromium") as this:
        ensure_browser(this)
    with step(terminal, "mmdebstrap") as this:
        ensure_mmdebstrap(this)
    with step(terminal, "btrfs and XFS") as this:
        ensure_file_systems(this)
    with step(terminal, "ssh-keygen") as this:
        ensure_ssh_keygen(this)
    with step(terminal, "nftables") as this:
        ensure_network_tools(this)
    with step(terminal, "kernel source and compiler") as this:
        ensure_kernel_tools(this)
    return _call([PYTHON, "-m", "pytest", *(arguments or WHOLE_SUITE)])


def _call(command: list[str | Path]) -> int:
    """Run a command that talks to the person itself; returns its exit code."""
    return subprocess.run(command, cwd=ROOT, check=False).returncode


def _complain(error: NexusError) -> None:
    terminal = Terminal()
    for line in error.detail.splitlines():
        terminal.line(" ", f"  {line}")
    terminal.line("✗", error.text, colour=31)
    if error.hint:
        terminal.line(" ", error.hint)

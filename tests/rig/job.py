"""The job disk: brings the project's tree and a command into level 1, and results back."""

from __future__ import annotations

import compileall
import os
import py_compile
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests import kernels
from tests.rig import lock_file

SIZE = "4G"  # sparse
#: What a running Nexus needs and git does not know. Icons are missing: nobody looks at pages.
BUILT = (
    "guest_agent/dist/nexus-agent-*",
    "node_modules/@tabler/core/dist/css/tabler.min.css*",
    "node_modules/htmx.org/dist/htmx.min.js*",
)
KILL_AFTER = 30  # seconds for a command that ran too long to end itself


def make_disk(disk: Path, tree: Path, command: Sequence[str], limit: int) -> None:
    """Make the file ``disk``; the command gets ``limit`` seconds, and 124 as its exit status
    when they are over."""
    with tempfile.TemporaryDirectory(prefix="nexus-rig-", dir=disk.parent) as directory:
        job = Path(directory)
        (job / "results").mkdir()
        for file in files_of(tree):
            copy = job / "tree" / file
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(tree / file, copy, follow_symlinks=False)
        _lend_kernel(job / "tree")
        _compile(job / "tree")
        script = job / "command"
        words = shlex.join(
            ["timeout", "--signal=INT", f"--kill-after={KILL_AFTER}", str(limit), *command]
        )
        script.write_text(f"#!/bin/sh\nexec {words}\n")
        script.chmod(0o755)
        options = ["-q", "-t", "ext4", "-O", "^has_journal", "-d", str(job)]
        subprocess.run(["mke2fs", *options, str(disk), SIZE], check=True, capture_output=True)


def _lend_kernel(tree: Path) -> None:
    """The kernel that Nexus builds, where this host has it."""
    if (kernel := kernels.cached_kernel()) is not None:
        copy = tree / kernels.LENT
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(kernel, copy)


def _compile(tree: Path) -> None:
    """Do what level 1, where everything is emulated, would need a minute for."""
    if f"{sys.version_info.major}.{sys.version_info.minor}" == lock_file.PYTHON:
        never_again = py_compile.PycInvalidationMode.UNCHECKED_HASH
        compileall.compile_dir(tree, quiet=2, invalidation_mode=never_again)


def files_of(tree: Path) -> Iterator[Path]:
    """The project's files as git sees them, changes and new ones included, and `BUILT`."""
    listed = subprocess.run(
        ["git", "-C", tree, "ls-files", "-coz", "--exclude-standard"],
        check=True,
        capture_output=True,
    ).stdout
    for name in filter(None, listed.split(b"\0")):
        path = Path(os.fsdecode(name))
        if os.path.lexists(tree / path):  # else it is deleted and not committed yet
            yield path
    for pattern in BUILT:
        yield from (path.relative_to(tree) for path in tree.glob(pattern))


def fetch_results(disk: Path, directory: Path) -> None:
    """Copy what the command left in /job/results to ``directory``/results."""
    directory.mkdir(parents=True, exist_ok=True)
    request = f'rdump /results "{directory}"'
    subprocess.run(["debugfs", "-R", request, disk], check=True, capture_output=True)

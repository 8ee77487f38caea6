"""A btrfs of Nexus's own, in a file, for hosts whose file system cannot share blocks.

<data_dir>/pool.btrfs     the file: sparse, no larger than the disk it is on
<data_dir>/pool/          where it is mounted; drives are in there then

Making and mounting it needs root, using it does not.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from images.files import sweep, system_errors, whole_file
from images.formats.e2fsprogs import install_command, search_path
from nexus_site.core.errors import Broken, Conflict, Denied, Invalid

MIN_POOL = 256 << 20
# Freed blocks go back to the disk that the file is on, in the background: not within each clone.
_OPTIONS = "loop,noatime,discard=async,user_subvol_rm_allowed"
_TIMEOUT = 300.0
_MOUNTS = Path("/proc/self/mountinfo")


def pool_path(data_dir: Path) -> Path:
    """The file of the pool, or where it would be."""
    return data_dir / "pool.btrfs"


def root_of(data_dir: Path) -> Path:
    """The directory that drives are under: the pool, if there is one, else ``data_dir``."""
    return data_dir / "pool" if pool_path(data_dir).exists() else data_dir


def check_pool(data_dir: Path, size_bytes: int) -> None:
    """Find out whether a pool of that size can be made; changes nothing.

    ``Conflict`` where there is one, or where drives are, which would be out of sight then;
    ``Invalid`` for a size below ``MIN_POOL`` or beyond the host's disk; ``Denied`` without root,
    with the command to run; ``Broken`` (``tool-missing``) with the command that installs it.
    """
    _check_size(data_dir, size_bytes)
    if pool_path(data_dir).exists():
        raise Conflict(
            "There is a pool already.", detail=str(pool_path(data_dir)), code="pool-exists"
        )
    if layout_of(data_dir / "drives"):
        raise Conflict(
            "There are drives already; they would not be in the pool.",
            hint="Export and delete them, make the pool, then import them.",
            code="drives-exist",
        )
    if os.geteuid() != 0:
        raise Denied(
            "Only root can mount a pool, and Nexus does not run as root.",
            hint=f"Run this, then restart Nexus: {_by_hand(data_dir, size_bytes)}",
            code="needs-root",
        )
    for tool in ("mkfs.btrfs", "mount"):
        find_tool(tool)


def create_pool(data_dir: Path, size_bytes: int) -> Path:
    """Make a pool, mount it, and return where it is mounted. Whatever fails is taken back.

    Raises what ``check_pool`` does, and ``Broken`` (``pool-failed``) where the kernel cannot.
    """
    check_pool(data_dir, size_bytes)
    sweep(data_dir)
    with whole_file(pool_path(data_dir)) as temporary:
        os.truncate(temporary, size_bytes)
        _run("mkfs.btrfs", "-q", str(temporary))
    try:
        ensure_mounted(data_dir)
    except BaseException:
        pool_path(data_dir).unlink()
        with contextlib.suppress(OSError):
            (data_dir / "pool").rmdir()
        raise
    return root_of(data_dir)


def ensure_mounted(data_dir: Path) -> None:
    """Mount the pool, if there is one that is not mounted.

    ``Broken`` (``pool-not-mounted``) with the command to run, where only root may.
    """
    file, root = pool_path(data_dir), data_dir / "pool"
    if not file.exists() or root.is_mount():
        return
    if os.geteuid() != 0:
        command = shlex.join(["sudo", "mount", "-o", _OPTIONS, str(file), str(root)])
        raise Broken(
            "The pool that drives are in is not mounted.",
            hint=f"Run this, then restart Nexus: {command}",
            code="pool-not-mounted",
        )
    with system_errors(), _locked(file):
        if not root.is_mount():  # another process may have been first
            root.mkdir(mode=0o700, exist_ok=True)
            _run("mount", "-o", _OPTIONS, str(file), str(root))
            root.chmod(0o700)


def layout_of(drives_dir: Path) -> str:
    """What kind of drives are in a directory: "files", "subvolumes", or "" for none."""
    for directory in (drives_dir, drives_dir / "snapshots"):
        if any(directory.glob("[a-z0-9]*.img")):
            return "files"
        if any(directory.glob("[a-z0-9]*/disk.img")):
            return "subvolumes"
    return ""


def file_system_of(path: Path) -> str:
    """The type of the file system that ``path`` is on, such as "ext4"; "unknown" for none."""
    real, found, longest = str(path.resolve()), "unknown", -1
    for line in _MOUNTS.read_text().splitlines():
        fields, _, rest = line.partition(" - ")
        mounted = re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), fields.split()[4])
        inside = real == mounted or real.startswith(mounted.rstrip("/") + "/")
        if inside and len(mounted) >= longest:  # a later mount hides those before it
            found, longest = rest.split()[0], len(mounted)
    return found


def _check_size(data_dir: Path, size_bytes: int) -> None:
    if size_bytes < MIN_POOL:
        raise Invalid(f"A pool has at least {MIN_POOL >> 20} MiB.", code="pool-too-small")
    total = shutil.disk_usage(data_dir).total
    if size_bytes > total:
        raise Invalid(
            f"The disk of the data directory has only {total >> 20} MiB.", code="pool-too-large"
        )


def _by_hand(data_dir: Path, size_bytes: int) -> str:
    file, root = shlex.quote(str(pool_path(data_dir))), shlex.quote(str(data_dir / "pool"))
    script = (
        f"truncate -s {size_bytes} {file} && mkfs.btrfs -q {file} && mkdir -p {root}"
        f" && mount -o {_OPTIONS} {file} {root} && chown {os.geteuid()}:{os.getegid()} {root}"
    )
    return f"sudo sh -c {shlex.quote(script)}"


def find_tool(tool: str) -> str:
    """Where a tool of pools is; ``Broken`` (``tool-missing``) with what installs it."""
    path = shutil.which(tool, path=search_path())
    if path is None:
        package = "btrfs-progs" if tool == "mkfs.btrfs" else "util-linux"
        command = install_command(package, zypper=package.replace("btrfs-", "btrfs"))
        raise Broken(
            f"The program {tool} is missing; a pool cannot be made without it.",
            hint=f"Install it: {command}",
            code="tool-missing",
        )
    return path


def _run(tool: str, *arguments: str) -> None:
    done = subprocess.run(
        [find_tool(tool), *arguments],
        env={"PATH": search_path(), "LC_ALL": "C"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=_TIMEOUT,
        text=True,
        errors="backslashreplace",
    )
    if done.returncode:
        raise Broken(
            f"{tool} failed with exit code {done.returncode}.",
            detail=f"{done.stdout}\n{done.stderr}".strip(),
            hint="The host's kernel must have btrfs and loop devices.",
            code="pool-failed",
        )


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)

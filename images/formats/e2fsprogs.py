"""The system's own ext4 tools (e2fsprogs), run as processes without privileges."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

from nexus_site.core.errors import Broken, Retryable

# Ordinary users often have no sbin in their PATH.
_SBIN = ("/usr/local/sbin", "/usr/sbin", "/sbin")
_INSTALL = {
    "apt-get": "apt-get install e2fsprogs",
    "dnf": "dnf install e2fsprogs",
    "apk": "apk add e2fsprogs e2fsprogs-extra",
    "pacman": "pacman -S e2fsprogs",
    "zypper": "zypper install e2fsprogs",
}
_TIMEOUT = 1800.0  # seconds; even a large file system takes a few
_DISK_FULL = "No space left on device"


class ToolFailed(Broken):
    """A tool ended with another exit code than it should; ``detail`` is all that it said."""

    default_code = "e2fsprogs-failed"


def run_tool(
    tool: str,
    arguments: Sequence[str | Path],
    *,
    accept: Collection[int] = (0,),
    environment: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> str:
    """Run ``mke2fs``, ``debugfs``, ``e2fsck`` or ``resize2fs``; returns its error output.

    Raises ``ToolFailed`` for an exit code that is not in ``accept``, ``Retryable`` with the
    code ``disk-full`` where it says that there is no space, ``Broken`` where it is missing.
    """
    command = [find_tool(tool), *map(str, arguments)]
    try:
        done = subprocess.run(
            command,
            env={"PATH": _search_path(), "LC_ALL": "C", **(environment or {})},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_TIMEOUT,
            text=True,
            errors="backslashreplace",
        )
    except subprocess.TimeoutExpired as error:
        raise Broken(f"{tool} did not end within {_TIMEOUT:.0f} s.", code="tool-timeout") from error
    if _DISK_FULL in done.stderr or _DISK_FULL in done.stdout:
        raise Retryable(
            f"The disk became full while {tool} was writing.",
            detail=done.stderr,
            hint="Free some space in the data directory, then try again.",
            code="disk-full",
        )
    if done.returncode not in accept:
        raise ToolFailed(
            f"{tool} failed with exit code {done.returncode}.",
            detail=f"{done.stdout}\n{done.stderr}".strip(),
        )
    return done.stderr


def find_tool(tool: str) -> str:
    """The full path of a tool; ``Broken`` with the command that installs it."""
    found = shutil.which(tool, path=_search_path())
    if found is None:
        raise Broken(
            f"The program {tool} is missing; Nexus writes ext4 images with it.",
            hint=f"Install it: {_install_command()}",
            code="tool-missing",
        )
    return found


def check(image: Path) -> None:
    """Raise ``Broken`` with the findings unless e2fsck finds the file system clean."""
    try:
        run_tool("e2fsck", ["-fn", image])
    except ToolFailed as error:
        raise Broken(
            "The ext4 file system has errors.", detail=error.detail, code="file-system-damaged"
        ) from error


def grow(image: Path) -> None:
    """Let the file system on ``image`` use all of the (larger) file.

    Replays its journal and repairs what is safe to repair first; ``Broken`` where that is not
    enough. Not for a disk in use.
    """
    try:
        run_tool("e2fsck", ["-fp", image], accept=(0, 1))  # 1: it repaired something
    except ToolFailed as error:
        raise Broken(
            "The file system has errors that cannot be repaired without a decision, "
            "so it was not grown.",
            detail=error.detail,
            hint="Look at them with e2fsck -f on a copy of the drive.",
            code="file-system-damaged",
        ) from error
    run_tool("resize2fs", [image])


def _search_path() -> str:
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))


def _install_command() -> str:
    for manager, command in _INSTALL.items():
        if shutil.which(manager, path=_search_path()):
            return command
    return "install the package e2fsprogs with the system's package manager"

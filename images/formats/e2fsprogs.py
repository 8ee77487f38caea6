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
    "apt-get": "apt-get install",
    "dnf": "dnf install",
    "apk": "apk add",
    "pacman": "pacman -S",
    "zypper": "zypper install",
}
_TIMEOUT = 1800.0  # seconds; even a large file system takes a few
_MAX_LABEL = 16  # bytes
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
            env={"PATH": search_path(), "LC_ALL": "C", **(environment or {})},
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
    found = shutil.which(tool, path=search_path())
    if found is None:
        raise Broken(
            f"The program {tool} is missing; Nexus writes ext4 images with it.",
            hint=f"Install it: {install_command('e2fsprogs', apk='e2fsprogs e2fsprogs-extra')}",
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


def make_ext4(image: Path, label: str = "") -> None:
    """Write an empty ext4 file system to a sparse file, all of it for data.

    ``label`` is cut where ext4 has no room for more. Tables of zeros stay holes, and the guest's
    kernel is told so, where mke2fs can.
    """
    words: list[str | Path] = ["-q", "-F", "-t", "ext4", "-b", "4096", "-m", "0"]
    if short := label.encode()[:_MAX_LABEL].decode(errors="ignore"):
        words += ["-L", short]
    try:
        run_tool("mke2fs", [*words, "-E", "assume_storage_prezeroed=1", image])
    except ToolFailed:  # before 1.47 it does not know the option
        run_tool("mke2fs", [*words, image])


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


def search_path() -> str:
    """Where to look for the system's tools, as PATH."""
    return os.pathsep.join((os.environ.get("PATH", os.defpath), *_SBIN))


def install_command(package: str, **others: str) -> str:
    """What installs ``package`` on this host; ``others``: its name by package manager."""
    for manager, command in _INSTALL.items():
        if shutil.which(manager, path=search_path()):
            return f"{command} {others.get(manager, package)}"
    return f"install the package {package} with the system's package manager"

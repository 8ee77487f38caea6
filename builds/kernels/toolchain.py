"""What building a kernel takes of this machine: found, or named with the way to get it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from nexus_site.core.errors import Conflict

#: Program or header -> the package that has it, as Debian calls it.
_PROGRAMS = {
    "make": "make",
    "gcc": "gcc",
    "ld": "binutils",
    "strip": "binutils",
    "flex": "flex",
    "bison": "bison",
    "bc": "bc",
    "perl": "perl",
}
_HEADERS = {"gelf.h": "libelf-dev"}
#: And what a version of kernel.org's takes, whose checksum is signed.
_PUBLISHED = {"gpgv": "gpgv"}
#: Where the kernel's makefiles may look; the worker's own environment is not part of a build.
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_ANSWER_WITHIN = 30.0  # seconds
#: The kernel is the same whoever builds it, where and when.
REPRODUCIBLE = {
    "KBUILD_BUILD_TIMESTAMP": "1970-01-01 00:00:00 UTC",
    "KBUILD_BUILD_USER": "nexus",
    "KBUILD_BUILD_HOST": "nexus",
    "KBUILD_BUILD_VERSION": "1",
}


def environment(temporary: Path) -> dict[str, str]:
    """All that make and the compiler are told; their temporary files go to ``temporary``."""
    words = {"PATH": PATH, "HOME": "/nonexistent", "LC_ALL": "C", "TZ": "UTC"}
    return words | {"TMPDIR": str(temporary)} | REPRODUCIBLE


def missing(*, published: bool = False) -> dict[str, str]:
    """What is not here, each with its package; empty when a kernel can be built, and, if it is
    to be a ``published`` one, its checksum be believed."""
    programs = _PROGRAMS | (_PUBLISHED if published else {})
    lost = {name: package for name, package in programs.items() if not _find(name)}
    if "gcc" not in lost:
        lost |= {name: package for name, package in _HEADERS.items() if not _has_header(name)}
    return lost


def require_tools(*, published: bool = False) -> None:
    """Raise ``Conflict`` (code ``build-tools-missing``) that names what is missing."""
    if lost := missing(published=published):
        raise Conflict(
            f"Building a kernel needs {', '.join(lost)}, which this machine does not have.",
            hint=f"Run as root: {install_command(lost)}",
            code="build-tools-missing",
        )


def install_command(lost: dict[str, str]) -> str:
    packages = " ".join(sorted(set(lost.values())))
    return f"apt-get install -y --no-install-recommends {packages}"


def compiler() -> str:
    """What the compiler calls itself: gcc (Debian 12.2.0-14) 12.2.0; ld … beside it."""
    return f"{_first_line('gcc')}; {_first_line('ld')}"[:200]


def _find(name: str) -> str | None:
    return shutil.which(name, path=PATH)


def _first_line(program: str) -> str:
    said = _run([program, "--version"]).stdout.decode(errors="replace")
    return said.partition("\n")[0].strip()


def _has_header(name: str) -> bool:
    argv = ["gcc", "-fsyntax-only", "-x", "c", "-include", name, os.devnull]
    return _run(argv).returncode == 0


def _run(argv: list[str]) -> subprocess.CompletedProcess[bytes]:
    program = _find(argv[0]) or argv[0]
    return subprocess.run(
        [program, *argv[1:]],
        env={"PATH": PATH, "LC_ALL": "C"},
        capture_output=True,
        check=False,
        timeout=_ANSWER_WITHIN,
    )

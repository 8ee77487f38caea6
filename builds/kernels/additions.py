"""What Nexus adds to a kernel's own source: whole files, no change of its code.

A file in `additions/` lies in the source's tree as it lies there, and is built with the other
files of its directory.
"""

from __future__ import annotations

from pathlib import Path

_DIRECTORY = Path(__file__).parent / "additions"


def additions() -> dict[str, str]:
    """The text of each file by its place in the source's tree."""
    files = sorted(_DIRECTORY.rglob("*.c"))
    return {path.relative_to(_DIRECTORY).as_posix(): path.read_text() for path in files}


def add_to(source: Path) -> list[str]:
    """Put the files into an unpacked source, once; which these are.

    One is left away where this kernel has no such directory, or has a file of that name.
    """
    added = []
    for name, text in additions().items():
        path = source / name
        makefile = path.with_name("Makefile")
        if path.exists() or not makefile.is_file():
            continue
        path.write_text(text)
        with makefile.open("a") as file:
            file.write(f"\nobj-y += {path.stem}.o\n")
        added.append(name)
    return added

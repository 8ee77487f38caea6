"""The Firecracker suite: which tests it is, and one run of them in level 1."""

from __future__ import annotations

import time

from tests.rig import build, runs
from tests.rig.results import REPORT, VERSION, Outcome, outcome

#: What needs a Firecracker that runs guests: of these paths, what has `firecracker` in its name.
PATHS = (
    "tests/conformance",
    "tests/vms/hypervisors/test_jail_firecracker.py",
    "tests/live/test_firecracker.py",
)
SELECTED = "firecracker"
LIMIT = 3600  # seconds for all of them
#: Of the latest run. `tail -f test-artifacts/rig/output.log` shows what it is at.
DIRECTORY = build.ROOT / "test-artifacts/rig"

_SCRIPT = f"""\
firecracker --version >/job/results/{VERSION}
exec python -m pytest -v -p no:cacheprovider -p tests.rig.evidence --color=no --durations=10 \
    --junitxml=/job/results/{REPORT} "$@"
"""


def run(arguments: tuple[str, ...] = (*PATHS, "-k", SELECTED), limit: int = LIMIT) -> Outcome:
    """Run pytest with these arguments in level 1."""
    began = time.monotonic()
    ended = runs.run(["sh", "-c", _SCRIPT, "sh", *arguments], directory=DIRECTORY, limit=limit)
    return outcome(ended, DIRECTORY, time.monotonic() - began)

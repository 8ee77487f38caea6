"""A pytest plugin in level 1: keeps what VMMs and guests said when a test fails."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path

import pytest

RESULTS = Path("/job/results/evidence")
NAMES = ("*.log", "exit.json", "monitor.json")
LARGEST = 1 << 20  # bytes; nothing that a person would read is larger


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Before fixtures take their directories away."""
    report = yield
    if report.failed:
        keep(Path(tempfile.gettempdir()), RESULTS / re.sub(r"[^\w.-]+", "-", item.nodeid))
    return report


def keep(source: Path, target: Path) -> None:
    """Copy all files of these names below ``source``, with their places."""
    for name in NAMES:
        for file in source.rglob(name):
            with suppress(OSError):  # tests go on, and so do their VMs
                if file.is_file() and file.stat().st_size <= LARGEST:
                    copy = target / file.relative_to(source)
                    copy.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(file, copy)

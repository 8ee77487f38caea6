"""What a disk that is really full does to builds and downloads of kernels."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    unshare = shutil.which("unshare")
    assert unshare, "util-linux is part of every Linux"
    data_dir = tmp_path_factory.mktemp("full") / "data"
    done = subprocess.run(
        [unshare, "--user", "--map-root-user", "--mount", sys.executable, "-W", "ignore",
         "-m", "tests.builds.kernels.full_disk", data_dir],
        cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("build", "The disk is full: building a kernel needs 2,500.0 MB, and 4.2 MB are free"),
        ("unpack", "The disk is full"),
        ("compile", "The disk became full while the kernel was built"),
        ("keep", "The disk is full"),
        ("download", "The disk is full: the file needs 2.1 MB, and 1.0 MB are free"),
        ("install", "The disk is full"),
    ],
)
def test_a_full_disk_is_told_and_nothing_stays(
    outcomes: dict[str, Any], when: str, words: str
) -> None:
    found = outcomes[when]
    assert (found["state"], found["error"]["code"]) == ("failed", "disk-full"), found
    assert words in found["error"]["text"]
    assert "ree some" in found["error"]["hint"]
    assert found["left"] == []


def test_once_it_is_freed_both_work(outcomes: dict[str, Any]) -> None:
    assert outcomes["built"]["state"] == "succeeded", outcomes["built"]
    assert outcomes["downloaded"]["state"] == "succeeded", outcomes["downloaded"]

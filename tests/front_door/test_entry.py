"""The script ``nexus``: every Python can read it, and only the standard library is needed."""

from __future__ import annotations

import ast
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
AS_OLD_PYTHON = """
import runpy, sys
sys.version_info = (3, 9, 2, "final", 0)
sys.argv = [sys.argv[1], "up", "--detach"]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def nexus(*words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-E", "-s", "-S", ROOT / "nexus", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def as_old_python(path: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", AS_OLD_PYTHON, ROOT / "nexus"]
    environment = {"PATH": str(path)}
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def fake_python(path: Path, *, works: bool) -> None:
    first = "echo started with: $*; exit 0" if works else "exit 127"
    path.write_text(f'#!/bin/sh\n[ "$1" = -c ] && exit {0 if works else 127}\n{first}\n')
    path.chmod(0o755)


def test_old_pythons_can_read_the_script() -> None:
    ast.parse((ROOT / "nexus").read_text(), feature_version=(3, 6))


def test_an_old_python_hands_over_to_a_newer_one_that_works(tmp_path: Path) -> None:
    fake_python(tmp_path / "python3.13", works=False)
    fake_python(tmp_path / "python3.12", works=True)
    answer = as_old_python(tmp_path)
    assert answer.returncode == 0
    assert answer.stdout == f"started with: {ROOT / 'nexus'} up --detach\n"


def test_an_old_python_alone_says_what_is_missing(tmp_path: Path) -> None:
    answer = as_old_python(tmp_path)
    assert answer.returncode == 1
    assert "Nexus needs Python 3.11 or newer. This is Python 3.9" in answer.stderr
    assert "python3.13, python3.12, python3.11" in answer.stderr


def test_help_needs_nothing_installed() -> None:
    answer = nexus("--help")
    assert answer.returncode == 0
    for command in ("up", "down", "test", "bench"):
        assert f"\n    {command} " in answer.stdout


@pytest.mark.parametrize(
    "words", [(), ("bogus",), ("up", "--bogus"), ("down", "now"), ("bench", "bogus")]
)
def test_wrong_usage(words: tuple[str, ...]) -> None:
    answer = nexus(*words)
    assert answer.returncode == 2
    assert answer.stderr.startswith("usage: ./nexus")


def test_the_oldest_python_is_the_one_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = runpy.run_path(str(ROOT / "nexus"))["OLDEST"]
    assert project["requires-python"] == ">={}.{}".format(*oldest)

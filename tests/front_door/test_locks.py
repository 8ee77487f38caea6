"""The lock files: complete, by hash, without addresses, and true to what they lock."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
LOCKS = sorted(path.stem for path in (ROOT / "requirements").glob("*.txt"))


def entries(name: str) -> list[str]:
    """The lock's logical lines."""
    text = (ROOT / f"requirements/{name}.txt").read_text()
    return [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]


def pins(name: str) -> set[tuple[str, str]]:
    """Packages and versions; a package may have several, for different Pythons."""
    words = [line.split(" ")[0].split("==") for line in entries(name)]
    return {(canonicalize_name(package), version) for package, version in words}


@pytest.mark.parametrize("name", LOCKS)
def test_every_file_is_fixed_by_its_hash(name: str) -> None:
    for line in entries(name):
        assert re.match(r"\S+==\S+ ", line), f"not an exact version: {line[:60]}"
        assert "--hash=sha256:" in line, f"no hash: {line[:60]}"


@pytest.mark.parametrize("file", [*(f"requirements/{n}.txt" for n in LOCKS), "package-lock.json"])
def test_no_lock_says_where_packages_come_from(file: str) -> None:
    text = (ROOT / file).read_text()
    assert not re.search(r"--(extra-)?index-url|--find-links|\"resolved\"|@ (https?|file)", text)


def test_what_the_tests_need_is_what_runs_and_more() -> None:
    assert pins("run") < pins("test")


def test_the_locks_satisfy_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    groups = project["dependency-groups"]
    run = [
        *project["project"]["dependencies"],
        *project["project"]["optional-dependencies"]["embedded"],
        *groups["build"],
    ]
    for name, wanted in (("run", run), ("test", groups["test"])):
        locked = pins(name)
        for text in wanted:
            need = Requirement(text)
            versions = [at for package, at in locked if package == canonicalize_name(need.name)]
            assert versions, f"{text} is not in {name}.txt"
            assert all(map(need.specifier.contains, versions)), f"{text}: {versions}"


def test_the_dashboards_packages_are_exact_and_checked() -> None:
    manifest = json.loads((ROOT / "package.json").read_text())
    packages = json.loads((ROOT / "package-lock.json").read_text())["packages"]
    assert packages.pop("")["dependencies"] == manifest["dependencies"]
    for package, version in manifest["dependencies"].items():
        assert packages[f"node_modules/{package}"]["version"] == version
    for path, package in packages.items():
        assert package["integrity"].startswith("sha512-"), path

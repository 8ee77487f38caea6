"""The rules of the house that a machine can check: format, types, imports, migrations, sizes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
LONGEST_FILE = 400


def run(*command: str | Path) -> None:
    """Run a tool at the top of the repository; its output is the failure's text."""
    done = subprocess.run(
        [str(part) for part in command], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def tracked(*patterns: str) -> list[Path]:
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", *patterns],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [ROOT / name for name in listing.split("\0") if name and (ROOT / name).exists()]


def test_python_is_formatted() -> None:
    run(BIN / "ruff", "format", "--check", ".", "nexus")


def test_python_has_no_lint() -> None:
    run(BIN / "ruff", "check", ".", "nexus")


def test_templates_are_formatted() -> None:
    templates = [path for path in tracked("templates/*.html") if path.suffix == ".html"]
    assert templates, "the dashboard's templates are there"
    run(BIN / "djade", "--target-version", "5.2", "--check", *templates)


def test_types_hold() -> None:
    packages = ("nexus_site", "guest_agent", "images", "drives", "builds", "vms", "nexusctl")
    run(BIN / "mypy", *packages, "front_door", "bench")


def test_imports_go_one_way() -> None:
    run(BIN / "lint-imports", "--no-cache")


def test_models_and_migrations_agree() -> None:
    run(sys.executable, "manage.py", "makemigrations", "--check", "--dry-run")


def test_the_deployment_passes_djangos_own_checks() -> None:
    run(sys.executable, "-W", "error", "manage.py", "check")


@pytest.mark.parametrize("suffix", [".py", ".go", ".html", ".js", ".css"])
def test_no_file_is_longer_than_a_reader_can_hold(suffix: str) -> None:
    long = {
        str(path.relative_to(ROOT)): lines
        for path in tracked(f"*{suffix}")
        if (lines := len(path.read_text().splitlines())) > LONGEST_FILE
    }
    assert not long, "split these by idea"


def test_no_file_names_a_registry_or_a_place_on_one_machine() -> None:
    words = ("pythonhosted" + ".org", "registry." + "npmjs", "pypi" + ".org", "deb." + "debian")
    guilty = []
    for path in tracked():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue
        guilty += [f"{path.relative_to(ROOT)}: {word}" for word in words if word in text]
    assert not guilty

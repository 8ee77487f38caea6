"""Small programs of ours on PATH, in the place of the host's."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from front_door import system
from front_door.steps import Step, Terminal

ROOT = Path(__file__).parents[2]


class Bin:
    """A directory that alone is PATH; what its programs were called with is in ``calls``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._log = directory.parent / "calls.log"
        self._log.touch()
        directory.mkdir()

    def add(self, name: str, script: str = "") -> Path:
        """Add a shell script; each call is noted before it does anything."""
        path = self.directory / name
        note = f'printf "%s\\n" "{name} $*" >> {shlex.quote(str(self._log))}'
        path.write_text(f"#!/bin/sh\n{note}\n{script}\n")
        path.chmod(0o755)
        return path

    def link(self, *names: str) -> None:
        """Let these programs of the host be found."""
        for name in names:
            found = shutil.which(name, path="/usr/local/bin:/usr/bin:/bin")
            assert found, name
            (self.directory / name).symlink_to(found)

    @property
    def calls(self) -> list[str]:
        return self._log.read_text().splitlines()


@pytest.fixture
def bin_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bin:
    programs = Bin(tmp_path / "bin")
    monkeypatch.setenv("PATH", str(programs.directory))
    programs.link("env", "sh")
    return programs


@pytest.fixture
def os_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    path = tmp_path / "os-release"
    monkeypatch.setattr(system, "OS_RELEASE", path)
    return lambda text: path.write_text(text) and None


@pytest.fixture
def said() -> Iterator[io.StringIO]:
    """What a person would have read."""
    return io.StringIO()


@pytest.fixture
def this(said: io.StringIO) -> Step:
    return Step(Terminal(said), "A step")


@pytest.fixture
def python_with(tmp_path: Path) -> Callable[[Path], Path]:
    """A Python that also finds the modules of a directory."""

    def make(modules: Path) -> Path:
        path = tmp_path / "python"
        path.write_text(f'#!/bin/sh\nPYTHONPATH={modules} exec {sys.executable} "$@"\n')
        path.chmod(0o755)
        return path

    return make

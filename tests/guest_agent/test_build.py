"""One source, one binary: small, static, and the same wherever it is built."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from guest_agent import binary, build
from guest_agent.build import SOURCE
from nexus_site.core.errors import Broken

MOST_BYTES = 2_500_000
ELF_MACHINES = {"x86_64": 62, "aarch64": 183}


def test_the_same_source_gives_the_same_bytes(agent_binary: Path, tmp_path: Path) -> None:
    elsewhere = shutil.copytree(SOURCE, tmp_path / "a" / "longer way" / "to it")
    again = build.build(source=elsewhere, directory=tmp_path / "dist")
    assert again.read_bytes() == agent_binary.read_bytes()


@pytest.mark.parametrize("arch", build.GO_ARCHES)
def test_it_is_small_and_static(arch: str, tmp_path: Path) -> None:
    program = build.build(arch, directory=tmp_path)
    content = program.read_bytes()
    assert program.name == f"nexus-agent-{arch}"
    assert program.stat().st_mode & 0o111
    assert len(content) < MOST_BYTES
    assert content[:4] == b"\x7fELF"
    assert int.from_bytes(content[18:20], "little") == ELF_MACHINES[arch]
    assert b"ld-linux" not in content, "it needs no loader"
    assert str(SOURCE).encode() not in content, "no path of this machine is in it"
    assert [path.name for path in tmp_path.iterdir()] == [program.name]


def test_a_broken_source_is_told_with_the_compilers_words(tmp_path: Path) -> None:
    (tmp_path / "go.mod").write_text("module nexus/agent\n\ngo 1.27\n")
    (tmp_path / "main.go").write_text("package main\n\nfunc main() { undefined() }\n")
    with pytest.raises(Broken, match="go build") as caught:
        build.build(source=tmp_path, directory=tmp_path / "dist")
    assert "undefined: undefined" in caught.value.detail
    assert list((tmp_path / "dist").iterdir()) == []


def test_an_architecture_nobody_builds_for() -> None:
    with pytest.raises(Broken, match="m68k"):
        build.build("m68k")


def test_without_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Broken) as caught:
        build.go_root()
    assert "nexus up" in caught.value.hint


def test_it_says_its_version(agent_binary: Path) -> None:
    said = subprocess.run([agent_binary, "version"], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == binary.agent_version()


def test_it_needs_a_command(agent_binary: Path) -> None:
    for arguments in ([], ["dance"]):
        said = subprocess.run([agent_binary, *arguments], capture_output=True, text=True)
        assert said.returncode == 2
        assert "usage" in said.stderr


def test_a_test_agent_needs_a_sandbox(agent_binary: Path) -> None:
    said = subprocess.run(
        [agent_binary, "agent", "--dial", "unix:/nowhere"], capture_output=True, text=True
    )
    assert said.returncode == 2
    assert "--sandbox" in said.stderr


def test_the_binary_is_found_and_known_by_its_digest(
    agent_binary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(binary, "DIST", agent_binary.parent)
    assert binary.agent_path() == agent_binary
    digest = hashlib.sha256(agent_binary.read_bytes()).hexdigest()
    assert binary.agent_digest() == digest
    khz = binary.host_tsc_khz.__wrapped__()
    assert khz is None or 100_000 < khz < 20_000_000


def test_a_binary_that_was_not_built(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(binary, "DIST", tmp_path)
    with pytest.raises(Broken) as caught:
        binary.agent_path()
    assert caught.value.hint == "Run `./nexus up`."
    with pytest.raises(Broken):
        binary.agent_path("m68k")


def test_a_host_without_the_counter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binary.platform, "machine", lambda: "aarch64")
    assert binary.host_tsc_khz.__wrapped__() is None


def test_building_the_package_builds_the_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    hatch_build: Any = pytest.importorskip("hatch_build")
    built: list[str] = []
    monkeypatch.setattr(build, "build", lambda: built.append("agent"))
    hook = SimpleNamespace(root=str(build.ROOM.parent))
    data: dict[str, list[str]] = {"artifacts": []}
    hatch_build.AgentBuildHook.initialize(hook, "standard", data)
    assert built == ["agent"]
    assert data["artifacts"] == ["guest_agent/dist/nexus-agent-*"]

"""The agent's own tests, run by Go: vet, unit tests, and the seeds of its fuzz tests."""

from __future__ import annotations

import pytest

from guest_agent.build import GO_ARCHES, SOURCE, go_root, run_go


@pytest.mark.parametrize("arch", GO_ARCHES)
def test_go_finds_nothing_wrong(arch: str) -> None:
    assert run_go("vet", "./...", arch=arch) == ""


def test_go_formats_nothing() -> None:
    import subprocess

    result = subprocess.run(
        [go_root() / "bin" / "gofmt", "-l", SOURCE], capture_output=True, text=True, check=True
    )
    assert result.stdout == ""


def test_go_tests_pass() -> None:
    output = run_go("test", "./...")
    assert "nexus/agent/internal/yamux" in output
    assert "no tests to run" not in output


def test_the_agent_uses_only_the_standard_library() -> None:
    modules = run_go("list", "-m", "all").split()
    assert modules == ["nexus/agent"]

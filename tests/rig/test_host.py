"""Where the rig can be, and why not elsewhere."""

from __future__ import annotations

import os
import platform
from pathlib import Path

import pytest

from tests.rig import build, host
from tests.rig.cache import Cache, default_directory


@pytest.fixture(autouse=True)
def _plain_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Root on x86_64, with nothing in the cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(os, "geteuid", lambda: 0)


def test_making_it_needs_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert "needs root" in host.rig_problem()


def test_making_it_needs_a_mirror_of_debian(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "system_sources", list)
    assert "no mirror of Debian" in host.rig_problem()


def test_another_architecture_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert "x86_64" in host.rig_problem()


def test_one_that_was_made_needs_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    def make(out: Path) -> None:
        (out / "root.ext4").write_text("made")

    with Cache(default_directory()).entry(build.key(), make):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setattr(host, "system_sources", list)
    assert host.rig_problem() == ""


def test_level_1_has_firecracker_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEXUS_TEST_RIG", "1")
    assert host.firecracker() == Path("/opt/firecracker")


def test_without_kvm_that_works_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NEXUS_TEST_RIG", raising=False)
    monkeypatch.setattr(host, "kvm_problem", lambda: "a guest hung for 10 s")
    assert host.firecracker() is None

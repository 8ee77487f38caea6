"""Control groups: plain files for what is written, the kernel's own for what ends processes."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken
from vms.hypervisors.firecracker import cgroups

GIB = 1 << 30


def unified() -> Path | None:
    """Where control groups version 2 are mounted, with or without controllers."""
    for line in Path("/proc/mounts").read_text().splitlines():
        _, where, kind, options, *_ = line.split()
        if kind == "cgroup2" and options.startswith("rw"):
            return Path(where)
    return None


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "cgroup.controllers").write_text("cpuset cpu io memory pids\n")
    for group in (tmp_path, tmp_path / cgroups.PARENT):
        group.mkdir(exist_ok=True)
        (group / "cgroup.subtree_control").write_text("cpu io\n")
    return tmp_path


def test_limits(root: Path) -> None:
    for name in ("cpu.max", "memory.max", "memory.swap.max", "pids.max"):
        (root / cgroups.PARENT / name).touch()
    assert cgroups.limits(2, 1024, root) == {
        "cpu.max": "300000 100000",
        "memory.max": str(GIB + 128 * 2**20),
        "memory.swap.max": str(GIB),
        "pids.max": "34",
    }
    assert cgroups.limits(1, 16 * 1024, root)["memory.max"] == str(18 * GIB)


def test_a_kernel_without_swap_has_no_limit_of_it(root: Path) -> None:
    for name in ("cpu.max", "memory.max", "pids.max"):
        (root / cgroups.PARENT / name).touch()
    assert list(cgroups.limits(1, 128, root)) == ["cpu.max", "memory.max", "pids.max"]


def test_controllers_that_are_missing(root: Path, tmp_path: Path) -> None:
    assert cgroups.missing_controllers(root) == []
    (root / "cgroup.controllers").write_text("cpu\n")
    assert cgroups.missing_controllers(root) == ["memory", "pids"]
    assert cgroups.missing_controllers(tmp_path / "none") == ["cpu", "memory", "pids"]


def test_the_parent_gets_the_controllers_it_lacks(root: Path) -> None:
    cgroups.make_parent(root)
    for group in (root, root / cgroups.PARENT):
        assert (group / "cgroup.subtree_control").read_text() == "+memory +pids"


def test_a_parent_that_cannot_be_made(tmp_path: Path) -> None:
    with pytest.raises(Broken, match="cannot be made") as caught:
        cgroups.make_parent(tmp_path / "none")
    assert caught.value.detail


# With the kernel


@pytest.fixture
def parent(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A group of the test's own that stands in for that of all VMs."""
    if os.geteuid() != 0 or unified() is None:
        pytest.skip("needs root and control groups version 2")
    mounted = unified()
    assert mounted
    name = f"nexus-test-{secrets.token_hex(4)}"
    monkeypatch.setattr(cgroups, "PARENT", name)
    (mounted / name).mkdir()
    yield mounted / name
    (mounted / name).rmdir()


@pytest.fixture
def processes(parent: Path) -> Iterator[list[subprocess.Popen[bytes]]]:
    (parent / "vm").mkdir()
    started = [subprocess.Popen(["sleep", "600"]) for _ in range(3)]
    for process in started:
        (parent / "vm" / "cgroup.procs").write_text(str(process.pid))
    yield started
    for process in started:
        process.kill()
        process.wait()
    cgroups.remove("vm", parent.parent)


@pytest.mark.parametrize("file", ["cgroup.kill", "cgroup.of_an_older_kernel"])
def test_removing_ends_all_processes(
    parent: Path,
    processes: list[subprocess.Popen[bytes]],
    monkeypatch: pytest.MonkeyPatch,
    file: str,
) -> None:
    monkeypatch.setattr(cgroups, "KILL", file)
    for _ in range(2):
        cgroups.remove("vm", parent.parent)
    assert not (parent / "vm").exists()
    assert [process.wait(60) for process in processes] == [-signal.SIGKILL] * 3


def test_what_does_not_end_is_told(
    parent: Path, processes: list[subprocess.Popen[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cgroups, "_kill", lambda group: None)
    monkeypatch.setattr(cgroups, "GONE_SECONDS", 0.05)
    with pytest.raises(Broken, match="cannot be removed"):
        cgroups.remove("vm", parent.parent)
    assert processes[0].poll() is None

"""The job disk, looked at with the same tools that level 1's kernel is spared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from images.formats.disks import open_disk
from images.formats.ext4_reader import Ext4
from tests import kernels
from tests.rig import job, lock_file


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A clone with a tracked, a deleted, a new and an ignored file, and a built agent."""
    tree = tmp_path / "tree"
    tree.mkdir()
    git = ["git", "-C", str(tree)]
    subprocess.run([*git, "init", "-q"], check=True)
    (tree / ".gitignore").write_text("secret\nguest_agent/dist/\n")
    for name in ("tracked", "deleted"):
        (tree / name).write_text(name)
    subprocess.run([*git, "add", "."], check=True)
    (tree / "deleted").unlink()
    (tree / "new ä").write_text("new")
    (tree / "link").symlink_to("nowhere")
    (tree / "secret").write_text("secret")
    (tree / "guest_agent/dist").mkdir(parents=True)
    (tree / "guest_agent/dist/nexus-agent-x86_64").write_text("agent")
    return tree


def test_the_tree_goes_in_as_git_sees_it_and_with_what_was_built(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "vmlinux").write_text("kernel")
    monkeypatch.setattr(kernels, "cached_kernel", lambda: tmp_path / "vmlinux")
    disk = tmp_path / "job.ext4"
    job.make_disk(disk, tree, ["echo", "two words"], limit=5)
    with open_disk(disk) as opened:
        names = {item.entry.path for item in Ext4(opened).items()}
    inside = {name.removeprefix("tree/") for name in names if name.startswith("tree/")}
    files = {".gitignore", "tracked", "new ä", "link", "guest_agent/dist/nexus-agent-x86_64"}
    files.add(str(kernels.LENT))
    directories = {"guest_agent", "guest_agent/dist", "test-artifacts", "test-artifacts/kernel"}
    assert inside - directories == files
    script = dump(disk, "/command", tmp_path)
    assert script == "#!/bin/sh\nexec timeout --signal=INT --kill-after=30 5 echo 'two words'\n"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("nexus-rig-")] == []


def test_python_goes_in_compiled_where_it_is_level_1s_version(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tree / "module.py").write_text("x = 1\n")
    here = f"{sys.version_info.major}.{sys.version_info.minor}"
    for version, expected in ((here, 1), ("2.7", 0)):
        monkeypatch.setattr(lock_file, "PYTHON", version)
        disk = tmp_path / f"job-{version}.ext4"
        job.make_disk(disk, tree, ["true"], limit=5)
        with open_disk(disk) as opened:
            names = [item.entry.path for item in Ext4(opened).items()]
        compiled = [name for name in names if name.startswith("tree/__pycache__/module.")]
        assert len(compiled) == expected


def test_results_come_back(tree: Path, tmp_path: Path) -> None:
    disk = tmp_path / "job.ext4"
    job.make_disk(disk, tree, ["true"], limit=5)
    write = f"write {tree / 'tracked'} /results/found"
    subprocess.run(["debugfs", "-w", "-R", write, disk], check=True, capture_output=True)
    job.fetch_results(disk, tmp_path / "a directory")
    assert (tmp_path / "a directory/results/found").read_text() == "tracked"


def dump(disk: Path, name: str, scratch: Path) -> str:
    target = scratch / "dumped"
    subprocess.run(
        ["debugfs", "-R", f"dump {name} {target}", disk], check=True, capture_output=True
    )
    return target.read_text()

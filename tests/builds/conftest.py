"""Trees and tools for the tests of packing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from images.trees import Tree
from tests.builds.packing_trees import fill


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree.create(tmp_path / "tree")


@pytest.fixture
def full_tree(tree: Tree) -> Tree:
    """A tree with one of everything."""
    fill(tree)
    return tree


@pytest.fixture
def shims(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory whose programs are found before the system's."""
    directory = tmp_path / "shims"
    directory.mkdir()
    monkeypatch.setenv("PATH", f"{directory}:{os.environ['PATH']}")
    return directory

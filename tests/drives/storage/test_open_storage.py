"""Choosing a backend."""

from __future__ import annotations

from pathlib import Path

import pytest

import drives.storage
from drives.storage import BACKENDS, Probe, Storage, open_storage, probe_all
from drives.storage.copy import CopyStorage
from images.files import Progress
from nexus_site.core.errors import Broken


class NeverUsable(CopyStorage):
    """A backend that this host cannot run."""

    name = "never"

    @classmethod
    def probe(cls, data_dir: Path) -> Probe:
        return Probe(cls.name, usable=False, problem="not on this file system")


def test_the_first_backend_that_works_is_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drives.storage, "BACKENDS", (NeverUsable, CopyStorage))
    assert open_storage(tmp_path).name == "copy"
    assert [(probe.name, probe.usable) for probe in probe_all(tmp_path)] == [
        ("never", False),
        ("copy", True),
    ]


def test_copying_works_everywhere_so_it_comes_last() -> None:
    assert BACKENDS[-1] is CopyStorage


def test_without_a_backend_every_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drives.storage, "BACKENDS", (NeverUsable,))
    with pytest.raises(Broken) as broken:
        open_storage(tmp_path)
    assert broken.value.code == "storage-unusable"
    assert broken.value.detail == "never: not on this file system"


def test_a_data_directory_that_cannot_be_written_is_no_storage(tmp_path: Path) -> None:
    """A file in its place: works for root as well, who may write everywhere."""
    (tmp_path / "data").write_text("a file")
    probe = CopyStorage.probe(tmp_path / "data")
    assert not probe.usable
    assert probe.problem


def test_opening_makes_the_directories_and_leaves_nothing_in_them(tmp_path: Path) -> None:
    open_storage(tmp_path / "data")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["data", "data/drives", "data/drives/snapshots", "data/images"]


def test_a_backend_is_one_method_and_a_probe(tmp_path: Path) -> None:
    """What a new backend has to write; everything else is shared."""

    class Whole(Storage):
        name = "whole"

        @classmethod
        def probe(cls, data_dir: Path) -> Probe:
            return Probe(cls.name, usable=data_dir.exists())

        def _copy(self, source: Path, target: Path, progress: Progress) -> None:
            target.write_bytes(source.read_bytes())

    storage = Whole(tmp_path)
    storage.create("drive", 4096)
    storage.snapshot("drive", "snapshot")
    assert storage.clone_snapshot("snapshot", "clone").read_bytes() == bytes(4096)

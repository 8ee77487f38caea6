"""Choosing a backend."""

from __future__ import annotations

from pathlib import Path

import pytest

import drives.storage
from bench.disks import loop_disk
from drives.storage import BACKENDS, Probe, Storage, open_storage, probe_all
from drives.storage.copy import CopyStorage
from drives.storage.reflink import ReflinkStorage
from nexus_site.core.errors import Broken
from tests.tiny_disk import can_mount


class NeverUsable(CopyStorage):
    """A backend that this host cannot run."""

    name = "btrfs"

    @classmethod
    def probe(cls, data_dir: Path) -> Probe:
        return Probe(cls.name, usable=False, problem="Not on this file system.")


@pytest.fixture
def only_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drives.storage, "BACKENDS", (NeverUsable, CopyStorage))


@pytest.mark.usefixtures("only_copies")
def test_the_first_backend_that_works_is_chosen(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    assert storage.name == "copy"
    assert [(probe.name, probe.usable) for probe in probe_all(tmp_path)] == [
        ("btrfs", False),
        ("copy", True),
    ]
    why, what_to_do = storage.describe().problems
    assert why == "btrfs: Not on this file system."
    assert "nexusctl storage init --loopback" in what_to_do


def test_copying_works_everywhere_so_it_comes_last() -> None:
    assert [backend.name for backend in BACKENDS] == ["btrfs", "reflink", "copy"]


def test_without_a_backend_every_reason_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drives.storage, "BACKENDS", (NeverUsable,))
    with pytest.raises(Broken) as broken:
        open_storage(tmp_path)
    assert broken.value.code == "storage-unusable"
    assert broken.value.detail == "btrfs: Not on this file system."


@pytest.mark.parametrize("backend", BACKENDS, ids=lambda backend: backend.name)
def test_a_data_directory_that_cannot_be_written_is_no_storage(
    backend: type[Storage], tmp_path: Path
) -> None:
    """A file in its place: works for root as well, who may write everywhere."""
    (tmp_path / "data").write_text("a file")
    probe = backend.probe(tmp_path / "data")
    assert not probe.usable
    assert probe.problem


@pytest.mark.usefixtures("only_copies")
def test_opening_makes_the_directories_and_leaves_nothing_in_them(tmp_path: Path) -> None:
    open_storage(tmp_path / "data")
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
    assert found == ["data", "data/drives", "data/drives/snapshots", "data/images"]


@pytest.mark.skipif(not can_mount(), reason="only root can mount a disk")
@pytest.mark.parametrize(("kind", "backend"), [("btrfs", "btrfs"), ("xfs", "reflink")])
def test_the_file_system_decides_and_the_drives_that_are_there(
    tmp_path: Path, kind: str, backend: str
) -> None:
    with loop_disk(tmp_path, kind) as disk:
        assert open_storage(disk / "new").name == backend
        CopyStorage(disk / "copied").create("drive", 1 << 20)
        storage = open_storage(disk / "copied")
        assert storage.name == "reflink", "it goes on with the files that are there"
        assert storage.inventory().drives == {"drive"}
        storage.delete("drive")
        assert open_storage(disk / "copied").name == backend


@pytest.mark.skipif(not can_mount(), reason="only root can mount a disk")
def test_subvolumes_are_for_btrfs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with loop_disk(tmp_path, "btrfs") as disk:
        open_storage(disk).create("drive", 1 << 20)
        monkeypatch.setattr(drives.storage, "BACKENDS", (NeverUsable, ReflinkStorage, CopyStorage))
        with pytest.raises(Broken) as broken:
            open_storage(disk)
    assert broken.value.detail.splitlines() == [
        "btrfs: Not on this file system.",
        "reflink: The drives here were made by another backend.",
        "copy: The drives here were made by another backend.",
    ]

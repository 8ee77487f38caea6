"""A snapshot whose memory is made whole while its guest goes on."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nexus_site.core.errors import Broken
from vms.hypervisors.base import Handle
from vms.hypervisors.firecracker import bases, changes, snapshots
from vms.hypervisors.records import read_json, write_json

OLD, NEW = b"o" * changes.PAGE, b"n" * changes.PAGE
WHOLE_AT = 7 * 10**9


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """As `save` leaves it."""
    directory = tmp_path / "snapshot"
    directory.mkdir()
    (directory / snapshots.BASE).write_bytes(OLD + OLD)
    with (directory / snapshots.CHANGES).open("wb") as file:
        file.truncate(2 * changes.PAGE)
        file.seek(changes.PAGE)
        file.write(NEW)
    (directory / snapshots.STATE).write_bytes(b"state")
    (directory / snapshots.MEMORY).touch()
    pending = {"facts": {"version": "1"}, "whole_at": WHOLE_AT}
    write_json(directory / snapshots.PENDING, pending)
    return directory


def assert_whole(directory: Path) -> None:
    names = {path.name for path in directory.iterdir()}
    assert names == {snapshots.STATE, snapshots.MEMORY, snapshots.FACTS}
    assert (directory / snapshots.MEMORY).read_bytes() == OLD + NEW
    assert read_json(directory / snapshots.FACTS) == {"version": "1", "state_size": 5}


def test_it_is_whole_afterwards(directory: Path) -> None:
    for _ in range(2):
        snapshots.complete(directory)
        assert_whole(directory)


def test_it_is_a_base_only_then(directory: Path, vm_dir: Path, tmp_path: Path) -> None:
    handle = Handle(vm_dir, 100, 5000.0, 99, 4999.0, "kvm")
    memory, size = directory / snapshots.MEMORY, 2 * changes.PAGE
    bases.remember(handle, memory, WHOLE_AT)
    snapshots.complete(directory)
    assert bases.take(handle, tmp_path / "base", size)
    assert (tmp_path / "base").samefile(memory)


@pytest.mark.parametrize("name", ["merge", "_write_facts", "utime"])
def test_cut_off_it_is_done_again(
    directory: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """As by the end of the worker, which cleans nothing up."""
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: None)
        patch.setattr({"merge": changes, "utime": os}.get(name, snapshots), name, cut_off)
        with pytest.raises(KeyboardInterrupt):
            snapshots.complete(directory)
    (directory / snapshots.MEMORY).write_bytes(b"half of it")
    snapshots.complete(directory)
    assert_whole(directory)


def cut_off(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("name", [snapshots.BASE, snapshots.CHANGES])
@pytest.mark.parametrize("damage", ["gone", "cut"])
def test_where_it_fails_nothing_is_left(directory: Path, name: str, damage: str) -> None:
    if damage == "gone":
        (directory / name).unlink()
    else:
        (directory / name).write_bytes(OLD)
    with pytest.raises(Broken) as caught:
        snapshots.complete(directory)
    assert caught.value.code in {"snapshot-failed", "hostile-vmm"}
    assert list(directory.iterdir()) == []

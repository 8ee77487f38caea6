"""What a VMM counts its guest's changes from, and when there is no trusting it."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from vms.hypervisors.base import Handle
from vms.hypervisors.firecracker import bases

SIZE = 3


@pytest.fixture
def handle(vm_dir: Path) -> Handle:
    return Handle(vm_dir, 100, 5000.0, 99, 4999.0, "kvm")


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    path = tmp_path / "memory"
    path.write_bytes(b"old")
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "target"


def test_it_is_there_when_its_first_name_is_gone(
    handle: Handle, memory: Path, target: Path
) -> None:
    bases.remember(handle, memory)
    memory.unlink()
    assert bases.take(handle, target, SIZE)
    assert target.read_bytes() == b"old"
    assert list(handle.vm_dir.iterdir()) == []


def test_it_is_taken_once(handle: Handle, memory: Path, target: Path) -> None:
    bases.remember(handle, memory)
    assert bases.take(handle, target, SIZE)
    target.unlink()
    assert not bases.take(handle, target, SIZE)


def test_the_last_one_counts(handle: Handle, memory: Path, target: Path, tmp_path: Path) -> None:
    newer = tmp_path / "newer"
    newer.write_bytes(b"new")
    bases.remember(handle, memory)
    bases.remember(handle, newer)
    assert bases.take(handle, target, SIZE)
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    "doubt",
    ["written to", "another size", "another VMM", "its pid again", "no record", "half", "no file"],
)
def test_in_doubt_there_is_none(handle: Handle, memory: Path, target: Path, doubt: str) -> None:
    bases.remember(handle, memory)
    size = SIZE
    match doubt:
        case "written to":
            os.utime(memory, ns=(0, memory.stat().st_mtime_ns + 1))
        case "another size":
            size = SIZE + 1
        case "another VMM":
            handle = replace(handle, pid=101)
        case "its pid again":
            handle = replace(handle, started=5001.0)
        case "no record":
            (handle.vm_dir / bases.RECORD).unlink()
        case "half":
            (handle.vm_dir / bases.RECORD).write_text('{"pid": 1')
        case "no file":
            (handle.vm_dir / bases.FILE).unlink()
    assert not bases.take(handle, target, size)
    assert not target.exists()
    assert list(handle.vm_dir.iterdir()) == []


def test_one_that_is_still_made_is_none_until_it_is_whole(
    handle: Handle, memory: Path, target: Path
) -> None:
    bases.remember(handle, memory, whole_at=7 * 10**9)
    assert not bases.take(handle, target, SIZE)
    bases.remember(handle, memory, whole_at=7 * 10**9)
    memory.write_bytes(b"new")
    os.utime(memory, ns=(7 * 10**9, 7 * 10**9))
    assert bases.take(handle, target, SIZE)
    assert target.read_bytes() == b"new"


def test_a_file_without_another_name_is_none(handle: Handle, target: Path, tmp_path: Path) -> None:
    """As on another file system."""
    bases.remember(handle, tmp_path / "missing")
    assert not bases.take(handle, target, SIZE)
    assert list(handle.vm_dir.iterdir()) == []

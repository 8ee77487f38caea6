"""Memories made of a base and of what a guest has changed since."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nexus_site.core.errors import Broken
from vms.hypervisors.firecracker import changes
from vms.hypervisors.firecracker.changes import PAGE

HOLE, ZEROS, OLD, NEW = None, bytes(PAGE), b"o" * PAGE, b"n" * PAGE
Pages = list[bytes | None]


def write(path: Path, pages: Pages) -> Path:
    """A file of these pages, with holes for those that are none."""
    with path.open("wb") as file:
        file.truncate(len(pages) * PAGE)
        for number, page in enumerate(pages):
            if page is not None:
                os.pwrite(file.fileno(), page, number * PAGE)
    return path


@given(
    st.lists(st.tuples(st.sampled_from([HOLE, ZEROS, OLD]), st.sampled_from([HOLE, ZEROS, NEW])))
)
def test_what_changed_is_new_and_all_else_as_it_was(pages: list[tuple[bytes | None, ...]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        there = Path(scratch)
        base = write(there / "base", [before for before, _ in pages])
        changed = write(there / "changes", [after for _, after in pages])
        memory = there / "memory"
        memory.write_bytes(b"of an attempt before")
        changes.merge(base, changed, memory)
        expected = [next((p for p in (after, before) if p), ZEROS) for before, after in pages]
        assert memory.read_bytes() == b"".join(expected)
        assert base.read_bytes() == b"".join(before or ZEROS for before, _ in pages)


def test_what_nobody_wrote_takes_no_room(tmp_path: Path) -> None:
    base = write(tmp_path / "base", [HOLE] * 1000 + [OLD])
    changed = write(tmp_path / "changes", [HOLE, NEW] + [HOLE] * 999)
    memory = tmp_path / "memory"
    memory.touch()
    changes.merge(base, changed, memory)
    assert memory.stat().st_size == 1001 * PAGE
    assert memory.stat().st_blocks * 512 < 100 * PAGE


@pytest.mark.parametrize("number", [0, 1, 3])
def test_files_that_do_not_fit_are_refused(tmp_path: Path, number: int) -> None:
    base = write(tmp_path / "base", [OLD, OLD])
    changed = write(tmp_path / "changes", [NEW] * number)
    memory = tmp_path / "memory"
    memory.touch()
    with pytest.raises(Broken) as caught:
        changes.merge(base, changed, memory)
    assert caught.value.code == "hostile-vmm"
    assert memory.read_bytes() == b""


def test_a_usual_file_system_tells_pages(tmp_path: Path) -> None:
    assert changes.tells_pages(tmp_path, 1 << 30)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "ranges",
    [[(0, 64 * PAGE)], [(0, 4 * PAGE)], []],
    ids=["holes are unknown", "pages have neighbours", "zeros are holes"],
)
def test_one_that_does_not_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[int, int]]
) -> None:
    monkeypatch.setattr(changes, "data_ranges", lambda fd, size: iter(ranges))
    assert not changes.tells_pages(tmp_path, 64 * PAGE)


def test_large_blocks_are_not_tried(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "PAGE", tmp_path.stat().st_blksize // 2)
    assert not changes.tells_pages(tmp_path, 1 << 20)

"""Clones that are made while something else goes on, as every storage backend promises them."""

from __future__ import annotations

import errno
import os
import stat

import pytest

from drives.storage import Storage
from images.files import differing_ranges
from nexus_site.core.errors import NotFound, Retryable
from tests.conformance_storage.conftest import SIZE, scribble
from tests.conformance_storage.test_storage import DRIVE, OTHER, SNAPSHOT, inventory


def test_a_clone_that_has_begun_is_there_and_whole_when_that_is_asked_for(
    storage: Storage, image: str
) -> None:
    scribble(storage.clone_image(image, DRIVE), b"kept")
    kept = storage.snapshot(DRIVE, SNAPSHOT)
    scribble(storage.drive_path(DRIVE), b"not kept")
    for drive in (OTHER, DRIVE):  # a new one, and one that is there
        whole = storage.begin_clone(SNAPSHOT, drive)
        path = storage.drive_path(drive)
        with path.open("rb") as opened:
            assert os.fstat(opened.fileno()).st_size == SIZE
            whole()
            assert opened.read() == kept.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert storage.inventory() == inventory(DRIVE, OTHER, snapshots=(SNAPSHOT,))


def test_only_what_differs_need_be_copied(storage: Storage, image: str) -> None:
    scribble(storage.clone_image(image, DRIVE), b"kept")
    kept = storage.snapshot(DRIVE, SNAPSHOT)
    path = storage.clone_image(image, OTHER)
    changes = differing_ranges(path, kept)
    assert 0 < sum(end - start for start, end in changes) < SIZE / 2
    storage.begin_clone(SNAPSHOT, OTHER, changes)()
    assert path.read_bytes() == kept.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    os.truncate(path, SIZE // 2)  # it is not what it should be: all is copied
    storage.begin_clone(SNAPSHOT, OTHER, changes)()
    assert path.read_bytes() == kept.read_bytes()


def test_a_clone_that_has_begun_and_fails_leaves_nothing(
    storage: Storage, image: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.clone_image(image, DRIVE)
    storage.snapshot(DRIVE, SNAPSHOT)
    with pytest.raises(NotFound):
        storage.begin_clone(DRIVE, OTHER)

    def no_space(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(storage, "_copy", no_space)
    monkeypatch.setattr(storage, "_clone", no_space)
    with pytest.raises(Retryable) as caught:
        storage.begin_clone(SNAPSHOT, OTHER)()
    assert caught.value.code == "disk-full"
    assert storage.inventory() == inventory(DRIVE, snapshots=(SNAPSHOT,))

"""What every storage backend leaves behind when the disk is full or its process is killed.

Each operation is cut short before each of its steps in turn, until it gets through.
"""

from __future__ import annotations

import itertools
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from drives.storage import Storage
from images.files import sha256_of
from images.formats.e2fsprogs import check
from nexus_site.core.errors import Retryable
from tests.conformance_storage.conftest import FRESH, IMAGE, MIB, SIZE, add_image, scribble
from tests.conformance_storage.steps import Steps, full_disk, kill_me
from tests.forked import start_forked

DRIVE, OTHER, NEW = "baaaaaaaaaaac", "caaaaaaaaaaac", "daaaaaaaaaaac"
SNAPSHOT, KEPT = "eaaaaaaaaaaac", "faaaaaaaaaaac"
GROWN = 6 * MIB

Contents = dict[str, str]


def receive(storage: Storage) -> None:
    with storage.receive(NEW) as path:
        path.write_bytes(storage.image_path(IMAGE).read_bytes())


@dataclass(frozen=True)
class Call:
    """An operation, and what it changes: new contents by name, or None for what goes."""

    run: Callable[[Storage], object]
    changes: Callable[[Contents], Mapping[str, str | None]]
    may_be_missing: str = ""  # in between, where it is made anew
    repeatable: bool = True

    def outcome(self, before: Contents) -> Contents:
        """What is there when it has worked."""
        changed = before | self.changes(before)
        return {name: content for name, content in changed.items() if content is not None}


CALLS: dict[str, Call] = {
    "clone_image": Call(
        lambda storage: storage.clone_image(IMAGE, NEW), lambda old: {NEW: old[IMAGE]}
    ),
    "clone_an_image_for_the_first_time": Call(
        lambda storage: storage.clone_image(FRESH, NEW), lambda old: {NEW: old[IMAGE]}
    ),
    "clone_image_anew": Call(
        lambda storage: storage.clone_image(IMAGE, DRIVE), lambda old: {DRIVE: old[IMAGE]}
    ),
    "clone_drive": Call(
        lambda storage: storage.clone_drive(DRIVE, NEW), lambda old: {NEW: old[DRIVE]}
    ),
    "clone_drive_anew": Call(
        lambda storage: storage.clone_drive(DRIVE, OTHER), lambda old: {OTHER: old[DRIVE]}
    ),
    "clone_snapshot": Call(
        lambda storage: storage.clone_snapshot(KEPT, NEW), lambda old: {NEW: old[KEPT]}
    ),
    "snapshot": Call(
        lambda storage: storage.snapshot(DRIVE, SNAPSHOT), lambda old: {SNAPSHOT: old[DRIVE]}
    ),
    "snapshot_anew": Call(
        lambda storage: storage.snapshot(DRIVE, KEPT), lambda old: {KEPT: old[DRIVE]}, KEPT
    ),
    "rollback": Call(lambda storage: storage.rollback(DRIVE, KEPT), lambda old: {DRIVE: old[KEPT]}),
    "resize": Call(
        lambda storage: storage.resize(DRIVE, GROWN),
        lambda old: {DRIVE: f"sound, {GROWN} bytes"},
    ),
    "create": Call(
        lambda storage: storage.create(NEW, GROWN),
        lambda old: {NEW: f"sound, {GROWN} bytes"},
        repeatable=False,
    ),
    "receive": Call(receive, lambda old: {NEW: old[IMAGE]}),
    "delete": Call(lambda storage: storage.delete(DRIVE), lambda old: {DRIVE: None}),
    "delete_snapshot": Call(
        lambda storage: storage.delete_snapshot(KEPT), lambda old: {KEPT: None}
    ),
}


def prepare(storage: Storage, packed_image: Path) -> Contents:
    """Images, drives and a snapshot that all differ; what they are."""
    add_image(storage, packed_image)
    add_image(storage, packed_image, FRESH)
    scribble(storage.clone_image(IMAGE, OTHER), b"another one")
    drive = storage.clone_image(IMAGE, DRIVE)
    scribble(drive, b"at first")
    storage.snapshot(DRIVE, KEPT)
    scribble(drive, b"boot sector", offset=0)
    return contents(storage)


def contents(storage: Storage) -> Contents:
    """What every image, drive and snapshot holds: a digest, or that it is sound."""
    found = storage.inventory()
    paths = {IMAGE: storage.image_path(IMAGE)}
    paths |= {drive: storage.drive_path(drive) for drive in found.drives}
    paths |= {snapshot: storage.snapshot_path(snapshot) for snapshot in found.snapshots}
    return {name: _content(path) for name, path in paths.items()}


def _content(path: Path) -> str:
    if path.stat().st_size == SIZE:
        return sha256_of(path)
    check(path)
    return f"sound, {path.stat().st_size} bytes"


@dataclass(frozen=True)
class Prepared:
    """A storage, and what it held before the call under test."""

    storage: Storage
    before: Contents

    def after_cut(self, call: Call) -> Prepared | None:
        """Itself, if the call has changed nothing; None when it has done all of it.

        A call that has done its work, or half of it where that is allowed, can be repeated.
        """
        left = contents(self.storage)
        if left == self.before:
            return self
        after = call.outcome(self.before)
        missing = {name: self.before[name] for name in self.before if name != call.may_be_missing}
        assert left == after or (call.may_be_missing and left == missing)
        if call.repeatable:
            call.run(self.storage)
            assert contents(self.storage) == after
        return None


@pytest.fixture
def prepared(new_storage: Callable[[], Storage], packed_image: Path) -> Callable[[], Prepared]:
    """Makes a storage to call something on."""

    def make() -> Prepared:
        storage = new_storage()
        return Prepared(storage, prepare(storage, packed_image))

    return make


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_disk_that_is_full_at_any_step_loses_nothing(
    prepared: Callable[[], Prepared], monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    now = prepared()
    for number in itertools.count():
        steps = Steps(number, full_disk, removing=False)
        with monkeypatch.context() as patch:
            steps.install(patch.setattr)
            refusal = refusal_of(now.storage, call)
        assert now.storage.inventory().leftovers == ()
        if not steps.reached:
            break
        assert refusal is not None, f"step {number} failed and nobody was told"
        assert refusal.code == "disk-full"
        now = now.after_cut(call) or prepared()
    assert contents(now.storage) == call.outcome(now.before)


def refusal_of(storage: Storage, call: Call) -> Retryable | None:
    try:
        call.run(storage)
    except Retryable as refusal:
        return refusal
    return None


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_a_process_killed_at_any_step_loses_nothing(
    prepared: Callable[[], Prepared], call: Call
) -> None:
    now = prepared()
    for number in itertools.count():
        worker, _ = start_forked(run_until, number, now.storage, call)
        worker.join()
        now.storage.sweep()
        assert now.storage.inventory().leftovers == ()
        if worker.exitcode == 0:
            break
        assert worker.exitcode == -signal.SIGKILL
        now = now.after_cut(call) or prepared()
    assert number > 0
    assert contents(now.storage) == call.outcome(now.before)


def run_until(number: int, storage: Storage, call: Call, _: Connection) -> None:
    Steps(number, kill_me, removing=True).install(setattr)
    call.run(storage)


def test_what_is_being_made_is_not_swept(storage: Storage, packed_image: Path) -> None:
    prepare(storage, packed_image)
    worker, halfway = start_forked(receive_for_ever, storage)
    assert halfway.recv() == "half done"
    assert storage.sweep() == []
    assert storage.inventory().leftovers == ()
    worker.kill()
    worker.join()
    assert len(storage.inventory().leftovers) == 1
    assert len(storage.sweep()) == 1
    assert storage.inventory().leftovers == ()


def receive_for_ever(storage: Storage, halfway: Connection) -> None:
    with storage.receive(NEW) as path:
        path.write_bytes(b"half")
        halfway.send("half done")
        signal.pause()

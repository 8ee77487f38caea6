"""Huey's queue in SQLite: whoever waits is woken, and nobody needs to be."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nexus_site import job_queue
from nexus_site.job_queue import WakingStorage

PATIENCE = 60.0


@pytest.fixture
def filename(tmp_path: Path) -> str:
    return str(tmp_path / "jobs.db")


@pytest.fixture
def endless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is not woken sleeps for longer than any test lasts."""
    monkeypatch.setattr(job_queue, "LONGEST_SLEEP", 3600.0)


def test_sleepers_are_woken_by_other_processes_jobs(endless: None, filename: str) -> None:
    worker, web = WakingStorage("nexus", filename), WakingStorage("nexus", filename)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(worker.dequeue) for _ in range(4)]
        jobs = [b"1", b"2", b"3", b"4"]
        while not all(future.done() for future in waiting):
            if jobs:
                web.enqueue(jobs.pop())
            # A thread that lost its job to another one comes back empty-handed and asks again.
            waiting = [
                threads.submit(worker.dequeue) if future.done() and not future.result() else future
                for future in waiting
            ]
    assert {future.result(PATIENCE) for future in waiting} == {b"1", b"2", b"3", b"4"}


def test_a_job_that_came_before_is_there_at_once(endless: None, filename: str) -> None:
    WakingStorage("nexus", filename).enqueue(b"early")  # nobody listens yet
    assert WakingStorage("nexus", filename).dequeue() == b"early"


def test_nobody_waits_for_ever(monkeypatch: pytest.MonkeyPatch, filename: str) -> None:
    monkeypatch.setattr(job_queue, "LONGEST_SLEEP", 0.01)
    assert WakingStorage("nexus", filename).dequeue() is None


def test_a_bell_that_nobody_hears_stops_no_one(endless: None, filename: str) -> None:
    storage = WakingStorage("nexus", filename)
    storage.enqueue(b"first")
    assert storage.dequeue() == b"first"
    with pytest.raises(BlockingIOError):
        while True:
            os.write(storage._bell, bytes(65536))
    storage.enqueue(b"second")
    assert storage.dequeue() == b"second"

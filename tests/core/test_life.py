"""Whether the worker lives: what its record says, and what is made of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from nexus_site.core.life import Heartbeat, WorkerLife, WorkerPulse, worker_life, write_beat


@pytest.fixture(autouse=True)
def record(settings: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "run").mkdir()
    here = settings.NEXUS.model_copy(update={"data_dir": tmp_path})
    monkeypatch.setattr(settings, "NEXUS", here)
    return tmp_path / "run/worker.json"


def _write(record: Path, **values: Any) -> None:
    own = {"pid": os.getpid(), "started": psutil.Process().create_time(), "seen": time.time()}
    record.write_text(json.dumps(own | values))


def test_without_a_record_it_never_ran() -> None:
    assert worker_life() == WorkerLife(alive=False)


@pytest.mark.parametrize("text", ["", "[]", "null", '{"pid": 1}', '{"pid": "x", "started": 1}'])
def test_a_record_that_is_none_is_no_worker(record: Path, text: str) -> None:
    record.write_text(text)
    assert worker_life() == WorkerLife(alive=False)


def test_a_beat_makes_this_process_the_worker(record: Path) -> None:
    write_beat()
    life = worker_life()
    assert (life.alive, life.pid) == (True, os.getpid())
    assert life.since is not None
    assert life.since.timestamp() == pytest.approx(psutil.Process().create_time())
    assert [path.name for path in record.parent.iterdir()] == ["worker.json"]


def test_another_process_with_its_pid_is_not_it(record: Path) -> None:
    _write(record, started=psutil.Process().create_time() - 60)
    life = worker_life()
    assert not life.alive
    assert life.since is not None, "it was seen before"


def test_a_process_that_is_silent_counts_as_down(record: Path) -> None:
    _write(record, seen=time.time() - 120)
    life = worker_life()
    assert not life.alive
    assert life.since is not None
    assert life.since.timestamp() < time.time() - 60


def test_a_killed_worker_that_nobody_has_reaped_is_down(record: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    started = psutil.Process(child.pid).create_time()
    _write(record, pid=child.pid, started=started)
    assert worker_life().alive
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not worker_life().alive
    child.communicate()
    assert not worker_life().alive


def test_the_pulse_tells_of_coming_and_going_once(record: Path) -> None:
    pulse = WorkerPulse()
    assert pulse() == []
    write_beat()
    assert pulse() == ["worker:here"]
    assert pulse() == []
    _write(record, seen=time.time() - 120)
    assert pulse() == ["worker:here"]
    assert pulse() == []


def test_the_heartbeat_leaves_the_time_of_its_end(record: Path) -> None:
    heartbeat = Heartbeat()
    heartbeat.start()
    _write(record, seen=1.0)
    heartbeat.stop()
    assert json.loads(record.read_text())["seen"] > 1.0

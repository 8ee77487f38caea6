"""What Firecracker counts, summed up over its flushes."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nexus_site.core.errors import Conflict
from vms.hypervisors.firecracker import metrics


@pytest.fixture(autouse=True)
def short_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """The lines here do not say when they were told."""
    monkeypatch.setattr(metrics, "FLUSH_SECONDS", 0.05)


def flush(log: Path, *lines: str) -> Callable[[], None]:
    def write() -> None:
        with log.open("a") as file:
            file.write("".join(lines))

    return write


def test_metrics_are_the_sums_of_what_each_flush_tells(tmp_path: Path) -> None:
    log = tmp_path / metrics.LOG
    lines = ['{"n": 1, "d": {"r": 5}, "start_us": 70, "x": "a"}', '{"n": 0, "d": {"r": 2, "w": 1}}']
    log.write_text(f"{lines[0]}\n")
    assert metrics.read(tmp_path, flush(log, f"{lines[1]}\n", '{"n": 3')) == {
        "n": 1,
        "d": {"r": 7, "w": 1},
        "start_us": 70,
        "x": "a",
    }
    more = metrics.read(tmp_path, flush(log, ', "start_us": 0}\n'))
    assert (more["n"], more["start_us"]) == (4, 70)
    assert metrics.read(tmp_path, flush(log, "nonsense\n")) == more


def test_metrics_survive_the_log_s_rotation(tmp_path: Path) -> None:
    log = tmp_path / metrics.LOG
    log.write_text('{"n": 1}\n{"n": ')
    assert metrics.read(tmp_path, flush(log, "")) == {"n": 1}
    log.rename(tmp_path / f"{metrics.LOG}.1")
    assert metrics.read(tmp_path, flush(log, '2}\n{"n":')) == {"n": 3}
    (tmp_path / f"{metrics.LOG}.dropped").write_text("15")
    log.rename(tmp_path / f"{metrics.LOG}.1")
    assert metrics.read(tmp_path, flush(log, "4}\n")) == {"n": 7}


def test_metrics_of_a_launch_begin_with_it(tmp_path: Path) -> None:
    (tmp_path / f"{metrics.LOG}.1").write_text('{"n": 100}\n')
    log = tmp_path / metrics.LOG
    assert metrics.read(tmp_path, flush(log, '{"n": 1}\n')) == {"n": 1}


def test_a_vmm_that_was_taken_over_does_not_fill_the_record(tmp_path: Path) -> None:
    log = tmp_path / metrics.LOG
    many = json.dumps({f"n{number}": 1 for number in range(20_000)})
    assert metrics.read(tmp_path, flush(log, f"{many}\n")) == {}


def test_the_counts_that_come_are_those_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not those that it writes of itself just then, and not before their line is whole."""
    monkeypatch.setattr(metrics, "FLUSH_SECONDS", 60)
    log = tmp_path / metrics.LOG
    log.write_text('{"utc_timestamp_ms": 5, "n": 1}\n')
    now = time.time_ns() // 10**6 + 1000
    parts = [f'{{"utc_timestamp_ms": {now - 60_000}, "n": 2}}\n{{"utc_', f'timestamp_ms": {now}, ']
    later = [
        threading.Timer(0.1, flush(log, parts[1])),
        threading.Timer(0.3, flush(log, '"n": 4}\n')),
    ]

    def asked() -> None:
        flush(log, parts[0])()
        for timer in later:
            timer.start()

    assert metrics.read(tmp_path, asked)["n"] == 7
    for timer in later:
        timer.join()


def test_there_are_no_metrics_yet(tmp_path: Path) -> None:
    assert metrics.read(tmp_path, lambda: None) == {}
    (tmp_path / metrics.LOG).write_text("[1]\nnonsense\n" + "[" * 20_000 + "\n")
    assert metrics.read(tmp_path, lambda: None) == {}


def test_metrics_of_an_ended_vmm_are_its_last(tmp_path: Path) -> None:
    (tmp_path / metrics.LOG).write_text(json.dumps({"n": 1}) + "\n")

    def ended() -> None:
        raise Conflict("The VM does not run any more.", code="vmm-ended")

    assert metrics.read(tmp_path, ended) == {"n": 1}

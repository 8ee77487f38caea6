"""What VMs use over HTTP: in columns, over time, and now."""

from __future__ import annotations

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.utils import timezone

from tests.factories import make_sample, make_vm
from vms.models import VM
from vms.services.metrics import MOST_POINTS
from vms.states import State
from vms.transitions import move

NOW = int(time.time()) // 600 * 600 - 600  # all slots of up to ten minutes begin here
COLUMNS = (
    *("cpu", "memory_used", "memory_total", "disk_read", "disk_write", "net_rx", "net_tx"),
    *("vmm_cpu", "vmm_memory"),
)


def iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def ask(reader: Any, first: float, last: float, points: int = 300) -> dict[str, Any]:
    query = {"from": iso(first), "to": iso(last), "points": points}
    response = reader.get("/vms/hello/metrics", query)
    assert response.status_code == 200, response.content
    found: dict[str, Any] = response.json()
    return found


def busy(vm: VM, first: int, last: int, every: int = 5, **values: Any) -> None:
    """A sample each five seconds, after ``first`` until ``last``."""
    for at in range(first + every, last + 1, every):
        make_sample(vm, at=at, seconds=float(every), **values)


def test_columns_are_of_one_length_and_as_old_as_they_say(world, reader):
    busy(world.vm, NOW - 60, NOW, cpu=0.5)
    found = ask(reader, NOW - 60, NOW)
    assert (found["from"][:19], found["to"][:19]) == (iso(NOW - 60)[:19], iso(NOW)[:19])
    assert found["step_seconds"] == 1
    assert [datetime.fromisoformat(at).timestamp() for at in found["at"]] == list(
        range(NOW - 55, NOW + 1, 5)
    )
    assert {len(found[name]) for name in COLUMNS} == {12}
    assert set(found["cpu"]) == {0.5}
    assert set(found["vmm_memory"]) == {150 << 20}


def test_many_samples_are_few_points_averages_and_for_memory_the_most(world, reader):
    for number, at in enumerate(range(NOW - 600, NOW, 5)):
        make_sample(world.vm, at=at, cpu=(number % 2) / 2, memory_used=number)
    found = ask(reader, NOW - 601, NOW - 1, points=11)
    assert found["step_seconds"] == 60
    assert found["cpu"] == [pytest.approx(0.25)] * 10
    assert found["memory_used"] == [11.0 + 12 * n for n in range(10)]


@pytest.mark.parametrize("points", [2, 7, 300, MOST_POINTS])
def test_there_are_never_more_points_than_asked_for(world, reader, points):
    busy(world.vm, NOW - 600, NOW, every=1)
    assert len(ask(reader, NOW - 597, NOW - 1, points=points)["at"]) <= points


def test_a_row_of_nothing_stands_where_nothing_was_measured(world, reader):
    busy(world.vm, NOW - 300, NOW - 240)
    busy(world.vm, NOW - 60, NOW)
    found = ask(reader, NOW - 300, NOW)
    gaps = [n for n, total in enumerate(found["memory_total"]) if total is None]
    assert gaps == [12]
    assert all(found[name][12] is None for name in COLUMNS)
    assert found["at"] == sorted(found["at"])


def test_thinned_samples_leave_no_gaps(world, reader):
    for at in range(NOW - 3600, NOW - 1800, 300):
        make_sample(world.vm, at=at, seconds=300.0, thinned=True)
    busy(world.vm, NOW - 2100, NOW - 1800)
    assert None not in ask(reader, NOW - 4000, NOW)["cpu"]


def test_the_summary_is_of_every_sample(world, reader):
    VM.objects.filter(pk=world.vm.pk).update(state=State.READY)
    busy(world.vm, NOW - 300, NOW - 5, cpu=0.1, net_rx=None)
    make_sample(world.vm, at=NOW, cpu=0.9, net_rx=None)
    make_sample(world.vm, cpu=0.3, net_rx=7.0)  # just now
    summary = ask(reader, NOW - 300, NOW, points=2)["summary"]
    assert set(summary) == set(COLUMNS)
    assert summary["cpu"]["now"] == 0.3
    assert summary["cpu"]["max"] == 0.9
    assert summary["cpu"]["avg"] == pytest.approx((59 * 0.1 + 0.9) / 60)
    assert summary["net_rx"] == {"now": 7.0, "avg": None, "max": None}


def test_moves_of_the_state_come_with_it(world, reader):
    move(world.vm, State.STARTING, "start requested")
    move(world.vm, State.FAILED, "<b>no</b>")
    found = reader.get("/vms/hello/metrics").json()["transitions"]
    assert [(row["from_state"], row["to_state"]) for row in found] == [
        ("", "created"),
        ("created", "starting"),
        ("starting", "failed"),
    ]
    assert found[-1]["reason"] == "<b>no</b>"
    assert not ask(reader, NOW - 300, NOW - 60)["transitions"]


def test_nothing_measured_is_no_error(world, reader):
    found = reader.get("/vms/hello/metrics").json()
    assert [found[name] for name in ("at", *COLUMNS)] == [[]] * 10
    assert found["summary"]["cpu"] == {"now": None, "avg": None, "max": None}
    span = datetime.fromisoformat(found["to"]) - datetime.fromisoformat(found["from"])
    assert span == timedelta(hours=1)


@pytest.mark.parametrize(
    "query",
    [
        {"points": 1},
        {"points": MOST_POINTS + 1},
        {"from": "yesterday"},
        {"from": "2026-01-01T00:00:00"},
        {"from": "2026-01-02T00:00:00Z", "to": "2026-01-01T00:00:00Z"},
        {"from": "9999-12-31T23:59:59-23:00"},
        {"from": "2026-01-02T00:00:00Z", "to": "0001-01-01T00:00:00+14:00"},
    ],
)
def test_spans_and_points_that_make_no_sense_are_refused(world, reader, query):
    assert reader.get("/vms/hello/metrics", query).status_code == 422


def test_the_beginning_of_time_may_be_asked_for(world, reader):
    make_sample(world.vm, at=NOW)
    answer = reader.get("/vms/hello/metrics", {"from": "0001-01-01T00:00:00+14:00"})
    assert len(answer.json()["at"]) == 1


def test_a_long_past_costs_no_more_queries(world, reader, django_assert_max_num_queries):
    busy(world.vm, NOW - 600, NOW, every=1)
    with django_assert_max_num_queries(7):
        assert ask(reader, NOW - 86400, NOW)["at"]


def test_what_vms_use_now_is_one_list(world, reader, django_assert_max_num_queries):
    for number in range(12):
        vm = make_vm(name=f"vm-{number:02}", state=State.READY)
        make_sample(vm, cpu=0.75, at=int(time.time()) - 5)
        make_sample(vm, cpu=number / 100)
    silent = make_vm(name="silent", state=State.UNREACHABLE)
    make_sample(silent)
    make_sample(make_vm(name="stopped", state=State.STOPPED))
    make_sample(make_vm(name="tired", state=State.READY), at=int(time.time()) - 60)
    with django_assert_max_num_queries(5):
        rows = reader.get("/metrics/vms").json()["items"]
    usage = {row["name"]: row["usage"] for row in rows}
    assert usage["vm-07"]["cpu"] == 0.07
    assert datetime.fromisoformat(usage["vm-07"]["at"]) > timezone.now() - timedelta(minutes=1)
    assert usage["silent"] is None
    assert usage["tired"] is None
    assert "stopped" not in usage
    assert len(usage) == 14


def test_some_vms_may_be_asked_about(world, reader):
    one, other = (make_vm(state=State.READY) for _ in range(2))
    make_vm(state=State.READY)
    query = {"vm": [one.ref, other.ref, "not an id"]}
    rows = reader.get("/metrics/vms", query).json()["items"]
    assert {row["id"] for row in rows} == {one.ref, other.ref}

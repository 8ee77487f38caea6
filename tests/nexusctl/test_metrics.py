"""``nexusctl vm metrics`` and ``vm top`` against the real API."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import pytest

from nexusctl.commands import vm_metrics
from nexusctl.commands.vm_metrics import sparkline
from tests.factories import make_sample, make_vm
from tests.nexusctl.conftest import Outcome
from vms.models import VM
from vms.states import State

Ctl = Callable[..., Outcome]


@pytest.fixture
def vm(ctl: Ctl) -> VM:
    return make_vm(name="web", state=State.READY)


def test_a_vm_s_past_is_a_table_with_sparklines(ctl: Ctl, vm: VM) -> None:
    now = int(time.time())
    for number, ago in enumerate(range(3000, -1, -100)):
        make_sample(vm, at=now - ago, seconds=100.0, cpu=number / 30, net_rx=None)
    done = ctl("vm", "metrics", "web")
    lines = {line[:12].strip(): line for line in done.out.splitlines()}
    assert done.code == 0
    assert lines[""].split() == ["NOW", "AVERAGE", "MOST"]
    assert lines["CPU"].split()[1:7] == ["100", "%", "50", "%", "100", "%"]
    assert lines["CPU"].endswith("▇███")
    assert lines["received"].split() == ["received", "-", "-", "-"]
    assert "2.0 KiB/s" in lines["disk written"]
    assert "→ created" in done.err


def test_how_far_back_is_said(ctl: Ctl, vm: VM) -> None:
    make_sample(vm, at=int(time.time()) - 7200)
    assert ctl("vm", "metrics", "web", "--since", "15m").err.startswith("Nothing was measured")
    answer = json.loads(ctl("vm", "metrics", "web", "--since", "3h", "--json").out)
    assert answer["cpu"] == [0.25]
    for wrong in ("", "1", "0h", "1y", "-1h", "9999999d"):
        assert ctl("vm", "metrics", "web", "--since", wrong).code == 2
    assert ctl("vm", "metrics", "no-such").code == 4


def test_gaps_are_gaps_and_the_largest_is_full() -> None:
    assert sparkline([0.0, None, 1.0, 2.0]) == "▁ ▅█"
    assert sparkline([0.0, 0.0]) == "▁▁"
    assert sparkline([None, None]) == "  "


def test_top_shows_what_runs_the_busiest_first(ctl: Ctl, vm: VM) -> None:
    make_sample(vm, cpu=0.2, memory_used=200 << 20)
    make_sample(make_vm(name="busy", state=State.READY), cpu=0.9, memory_used=10 << 20)
    make_vm(name="silent", state=State.UNREACHABLE)
    make_vm(name="gone", state=State.STOPPED)
    done = ctl("vm", "top", "--once")
    heading, *rows = (line.split() for line in done.out.splitlines())
    assert heading[:4] == ["NAME", "STATE", "CPU", "MEMORY"]
    assert [row[0] for row in rows] == ["busy", "web", "silent"]
    assert rows[0][1:6] == ["ready", "90", "%", "10.0", "MiB"]
    assert rows[2][1:] == ["unreachable", *"-" * 9]
    by_memory = ctl("vm", "top", "--sort", "memory").out.splitlines()
    assert by_memory[1].startswith("web")
    assert json.loads(ctl("vm", "top", "--json").out)[0]["usage"]["cpu"] == 0.9


def test_nothing_runs(ctl: Ctl) -> None:
    done = ctl("vm", "top")
    assert (done.code, done.out, done.err) == (0, "", "No VM runs.\n")


def test_top_goes_on_in_a_terminal_until_it_is_interrupted(
    ctl: Ctl, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(vm_metrics.output, "is_terminal", lambda stream=None: True)
    monkeypatch.setattr(vm_metrics.time, "sleep", pause)
    done = ctl("vm", "top", "--interval", "7")
    assert (done.code, pauses) == (0, [7.0] * 3)
    assert done.out.count("web") == 3

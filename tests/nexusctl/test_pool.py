"""``nexusctl pool`` and ``vm from-pool``, and the real API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from images.models import Image
from tests.nexusctl.conftest import Outcome
from tests.vms.warm_hosts import image_with_file, install_host
from vms import supervision
from vms.models import VM, Pool
from vms.services import refilling
from vms.states import State

Ctl = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def image(ctl: Ctl, monkeypatch: pytest.MonkeyPatch, settings: Any) -> Image:
    install_host(monkeypatch, settings)
    monkeypatch.setattr(supervision, "with_agent", lambda vm, call: None)
    monkeypatch.setattr(refilling, "LOAD", 1000.0)
    return image_with_file()


def create(ctl: Ctl, *more: str) -> Outcome:
    return ctl("pool", "create", "ready", "--image", "alpine", "--memory", "128", *more)


def test_a_pool_from_its_beginning_to_its_end(ctl: Ctl) -> None:
    nothing = ctl("pool", "list")
    assert "nexusctl pool create" in nothing.out + nothing.err
    made = create(ctl, "--size", "2")
    pool = Pool.objects.get()
    assert (made.code, made.out.split()) == (0, ["ready", pool.ref])
    headings, line = ctl("pool", "list").out.splitlines()
    assert headings.split()[:4] == ["NAME", "ID", "READY", "IMAGE"]
    assert line.split()[:4] == ["ready", pool.ref, "2/2", "alpine"]

    assert ctl("pool", "resize", "ready", "3").code == 0
    shown = ctl("pool", "show", "ready").out
    assert "3 of 3" in shown
    assert shown.count("pool-ready-") == 3

    taken = ctl("pool", "take", "ready", "--name", "web")
    vm = VM.objects.get(name="web")
    assert (taken.code, taken.out.split()) == (0, ["web", vm.ref])
    assert "web" in ctl("vm", "list").out
    assert "taken from pool ready" in ctl("vm", "history", "web").out
    assert ctl("vm", "from-pool", "ready", "--name", "db").code == 0
    assert "Say --yes" in ctl("pool", "delete", "ready").err
    assert ctl("pool", "delete", "ready", "--yes").code == 0
    assert sorted(vm.name for vm in VM.objects.shown()) == ["db", "web"]
    assert not VM.objects.filter(purpose="pool").exists()


def test_one_is_started_where_none_is_ready(ctl: Ctl) -> None:
    assert create(ctl).code == 0
    VM.objects.filter(purpose="pool").update(state=State.RUNNING)
    refused = ctl("vm", "from-pool", "ready")
    assert refused.code == 5
    assert "--or-start" in refused.err
    started = ctl("vm", "from-pool", "ready", "--name", "web", "--or-start")
    assert (started.code, started.out.split()[0]) == (0, "web")
    assert VM.objects.get(name="web").state == State.READY


def test_a_dry_run_changes_nothing_and_a_problem_is_told(
    ctl: Ctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "ready" in create(ctl, "--dry-run").out
    assert not Pool.objects.exists()
    monkeypatch.setattr(refilling, "RESERVE", 1.0)
    assert "Waits for memory" in create(ctl).err
    assert "Waits for memory" in ctl("pool", "list").err
    assert "Waits for memory" in ctl("pool", "show", "ready").out
    assert create(ctl, "--size", "101").code == 2
    both = ctl("pool", "create", "x", "--image", "alpine", "--template", "t")
    assert both.code in (1, 4)

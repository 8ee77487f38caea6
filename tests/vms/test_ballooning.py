"""Guests that give memory back."""

from __future__ import annotations

from pathlib import Path

import pytest

from nexus_site.core import operations
from nexus_site.core.errors import Conflict, Invalid
from nexus_site.core.models import Operation
from tests.factories import make_vm
from vms import ballooning, services
from vms.hypervisors.base import Exit, Handle
from vms.states import ALIVE, State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]


class Driver:
    def __init__(self) -> None:
        self.found: Handle | Exit = Handle(Path("/nowhere"), 1, 1, 2, 2, "kvm")
        self.told: list[int] = []

    def adopt(self, _: Path) -> Handle | Exit:
        return self.found

    def balloon(self, _: Handle, mem_size_mib: int) -> None:
        self.told.append(mem_size_mib)


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setattr(ballooning, "driver_of", lambda vm: driver)
    return driver


def _run(operation: Operation) -> Operation:
    operations.execute(operation.pk)
    operation.refresh_from_db()
    return operation


def test_the_guest_is_told_what_to_keep(driver: Driver) -> None:
    vm = make_vm(state=State.READY, mem_size_mib=512)
    done = _run(services.balloon_vm(vm, 128))
    assert (done.state, driver.told) == ("succeeded", [128])
    assert done.steps[0]["note"] == "it is to keep 128 MiB of 512"
    vm.refresh_from_db()
    assert vm.mem_size_mib == 512, "the next start gives it all again"


def test_a_vmm_that_has_ended_is_told_nothing(driver: Driver) -> None:
    operation = services.balloon_vm(make_vm(state=State.READY), 128)
    driver.found = Exit(0, None, 1.0)
    assert _run(operation).error["code"] == "vmm-ended"
    assert driver.told == []


@pytest.mark.parametrize("size", [0, 63, 513])
def test_a_guest_keeps_what_it_needs_and_at_most_what_it_has(size: int) -> None:
    with pytest.raises(Invalid, match="keeps 64 to 512 MiB"):
        services.balloon_vm(make_vm(state=State.READY, mem_size_mib=512), size)


@pytest.mark.parametrize("state", [state for state in State if state not in ALIVE] + ["paused"])
def test_only_a_guest_that_runs_gives_memory_back(state: State) -> None:
    with pytest.raises(Conflict, match="only a guest that runs"):
        services.balloon_vm(make_vm(state=state), 128)

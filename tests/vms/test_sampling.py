"""What is made of the counters of guests and VMMs."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries

from guest_agent.messages import Heartbeat
from tests.factories import make_vm
from vms import sampling
from vms.hypervisors import monitor
from vms.hypervisors.base import Handle
from vms.models import VM, Sample
from vms.sampling import FASTEST, GuestCounters, Look, Sampler, VmmUsage, byte_rate, rates, share
from vms.states import State
from vms.watch import Watch

MIB = 1 << 20
T = TypeVar("T")


def heartbeat(busy: int = 0, idle: int = 0, **values: Any) -> dict[str, Any]:
    """A heartbeat of a guest with a disk and an interface, and one of each that it made itself."""
    disk = {"read_bytes": values.pop("read", 0), "write_bytes": values.pop("written", 0)}
    traffic = {"rx_bytes": values.pop("received", 0), "tx_bytes": values.pop("sent", 0)}
    made = {"read_bytes": 1 << 50, "write_bytes": 1 << 50}
    bridge = {"rx_bytes": 1 << 50, "tx_bytes": 1 << 50}
    return {
        "memory_total": 256 * MIB,
        "memory_available": 156 * MIB,
        "cpu": {"user": busy, "system": 0, "idle": idle, "iowait": 0, "steal": 0, "count": 2},
        "io": [{"device": "vda", **disk}, {"device": "dm-0", **made}],
        "network": [{"name": "eth0", **traffic}, {"name": "docker0", **bridge}],
    } | values


class NoDatabase:
    """For a watch that is not started."""

    async def in_database(self, call: Callable[[], T]) -> T:
        raise NotImplementedError


def look(at: float, heartbeat: dict[str, Any], vmm: VmmUsage | None = None) -> Look:
    return Look(at, GuestCounters.of(heartbeat), vmm)


@pytest.fixture
def handle(tmp_path: Path) -> Iterator[Handle]:
    """A process that could be a VMM."""
    with subprocess.Popen(["sleep", "600"]) as process:
        yield Handle(tmp_path, process.pid, monitor.start_time(process.pid), 1, 1, "kvm")
        process.kill()


def test_rates_are_what_was_counted_in_between() -> None:
    before = look(100.0, heartbeat(busy=100, idle=900), VmmUsage(10.0, 300 * MIB))
    later = heartbeat(busy=400, idle=1600, read=50, written=1000, received=200, sent=7)
    now = look(110.0, later, VmmUsage(13.0, 310 * MIB))
    assert rates(before, now) == {
        "cpu": 0.3,
        "disk_read": 5.0,
        "disk_write": 100.0,
        "net_rx": 20.0,
        "net_tx": 1.0,
        "vmm_cpu": 0.3,
    }


def test_a_guest_that_began_anew_has_no_rates_and_no_negative_ones() -> None:
    before = heartbeat(busy=4000, idle=16000, read=50, written=1000, received=200, sent=7)
    now = heartbeat(busy=40, idle=160, read=5, written=100, received=20, sent=1)
    usage = VmmUsage(10.0, MIB), VmmUsage(1.0, MIB)
    found = rates(look(1.0, before, usage[0]), look(2.0, now, usage[1]))
    assert set(found.values()) == {None}


def test_what_an_old_agent_does_not_tell_is_not_known() -> None:
    silent = heartbeat(cpu=None, io=(), network=())
    found = rates(look(1.0, silent), look(2.0, silent))
    assert set(found.values()) == {None}


def test_a_share_is_never_more_than_all_of_it() -> None:
    assert share((0, 100), (500, 200)) == 1.0
    assert share((0, 100), (0, 100)) is None


def test_a_disk_that_comes_or_goes_is_no_step_backwards() -> None:
    both, one = {"vda": 10, "sda": 1 << 40}, {"vda": 30}
    assert byte_rate(both, one, 2.0) == 10.0
    assert byte_rate(one, {"vda": 30, "sda": 1 << 40}, 2.0) == 0.0


def test_what_no_machine_can_is_not_believed() -> None:
    assert byte_rate({"vda": 0}, {"vda": 2**63 - 1}, 5.0) is None
    assert byte_rate({"vda": 0}, {"vda": FASTEST}, 1.0) == FASTEST
    assert byte_rate({"vda": 0}, {"vda": 10}, 0.0) is None


COUNTS = st.integers(0, 2**63 - 1)
GUESTS = st.builds(
    GuestCounters,
    cpu=st.none() | st.tuples(COUNTS, COUNTS),
    **{
        name: st.dictionaries(st.sampled_from(["vda", "sda", "eth0"]), COUNTS)
        for name in ("disk_read", "disk_write", "net_rx", "net_tx")
    },
)


@given(GUESTS, GUESTS, st.floats(0.001, 1e6))
def test_whatever_a_guest_says_every_value_is_in_its_bounds(
    was: GuestCounters, is_: GuestCounters, seconds: float
) -> None:
    found = rates(Look(0.0, was, None), Look(seconds, is_, None))
    assert all(value is None or 0 <= value <= FASTEST for value in found.values())
    assert found["cpu"] is None or found["cpu"] <= 1


@pytest.mark.django_db
def test_at_most_one_sample_each_interval_and_one_query_for_it(
    handle: Handle, settings: Any, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    settings.NEXUS = settings.NEXUS.model_copy(update={"heartbeat_interval": 5.0})
    vm = make_vm()
    sampler = Sampler(vm, handle)
    sampler.keep(heartbeat(busy=0, idle=100), 1000.0)
    sampler.keep(heartbeat(busy=10, idle=150), 1002.0)
    with django_assert_num_queries(1):
        sampler.keep(heartbeat(busy=50, idle=550, written=5000), 1005.0)
    first, second = Sample.objects.order_by("number")
    assert (first.seconds, first.cpu, first.disk_write, first.vmm_cpu) == (0, None, None, None)
    assert (first.memory_used, first.memory_total) == (100 * MIB, 256 * MIB)
    assert first.vmm_memory is not None
    assert 0 < first.vmm_memory < 100 * MIB
    assert (second.seconds, second.cpu, second.disk_write) == (5.0, 0.1, 1000.0)
    assert second.vmm_cpu is not None
    assert 0 <= second.vmm_cpu < 0.5, "it sleeps"


@pytest.mark.django_db
def test_memory_that_cannot_be_is_not_known(handle: Handle) -> None:
    Sampler(make_vm(), handle).keep(heartbeat(memory_available=300 * MIB), 1.0)
    assert Sample.objects.get().memory_used is None


def test_a_vmm_is_no_other_process_under_its_pid(handle: Handle) -> None:
    assert VmmUsage.of(handle)
    other = Handle.from_dict(handle.to_dict() | {"started": handle.started + 1})
    assert VmmUsage.of(other) is None


def test_a_vmm_has_no_more_than_all_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert sampling._vmm_cpu(VmmUsage(0.0, 1), VmmUsage(50.0, 1), 5.0) == 2


@pytest.mark.django_db
def test_each_heartbeat_of_a_watched_vm_is_a_sample_while_there_is_a_vm(handle: Handle) -> None:
    vm = make_vm(root=False, state=State.READY)
    watch = Watch(NoDatabase(), vm, handle)
    memory = {"total": 256 * MIB, "available": 156 * MIB}
    said = Heartbeat.parse(
        {"uptime": 1, "time": 1, "load": [0, 0, 0], "memory": memory, "disks": []}
    )
    watch._keep(said)
    sample = vm.samples.get()
    assert (sample.memory_used, sample.cpu) == (100 * MIB, None)
    VM.objects.filter(pk=vm.pk).delete()
    watch._answered_at += 100
    watch._keep(said)
    assert not Sample.objects.exists()

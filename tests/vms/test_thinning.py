"""What is kept of samples as they grow old."""

from __future__ import annotations

import time
from typing import Any

import pytest

from nexus_site import tasks
from tests.factories import make_sample, make_vm
from vms import metrics_retention
from vms.metrics_retention import SLOT, thin
from vms.metrics_slots import FULL, samples_of
from vms.models import VM, Sample

pytestmark = pytest.mark.django_db

HOUR, DAY = 3600, 86400
NOW = 1_800_000_000  # a slot begins here


@pytest.fixture
def vm() -> VM:
    return make_vm()


def minutes_of(vm: VM, first: int, seconds: int) -> None:
    """A sample each 60 seconds from ``first`` on, the CPU busier each minute."""
    for number, at in enumerate(range(first + 60, first + seconds + 1, 60)):
        make_sample(vm, at=at - 1, seconds=60.0, cpu=number / 10, memory_used=number, net_rx=None)


def test_what_is_young_stays_as_it_is(vm: VM) -> None:
    minutes_of(vm, NOW - 48 * HOUR, 48 * 60)
    before = list(Sample.objects.values())
    thin(NOW)
    assert list(Sample.objects.values()) == before


def test_five_minutes_become_one_row_of_averages_and_the_most_memory(vm: VM) -> None:
    minutes_of(vm, NOW - 48 * HOUR - SLOT, SLOT)
    thin(NOW)
    row = Sample.objects.get()
    assert (row.thinned, row.at, row.seconds) == (True, NOW - 48 * HOUR - 1, 300.0)
    assert row.cpu == pytest.approx(0.2)
    assert row.memory_used == 4
    assert row.disk_write == 2048.0
    assert row.net_rx is None, "what was not known is not known"


def test_a_slot_is_thinned_once_all_of_it_is_old(vm: VM) -> None:
    minutes_of(vm, NOW - 48 * HOUR - SLOT, 2 * SLOT)
    thin(NOW - 1)
    assert Sample.objects.filter(thinned=False).count() == 10
    thin(NOW)
    assert Sample.objects.filter(thinned=False).count() == 5
    thin(NOW + SLOT)
    thin(NOW + SLOT)
    assert list(Sample.objects.values_list("thinned", flat=True)) == [True, True]


def test_what_is_too_old_goes_thinned_or_not(vm: VM) -> None:
    make_sample(vm, at=NOW - 30 * DAY - 1, thinned=True)
    make_sample(vm, at=NOW - 40 * DAY)
    kept = make_sample(vm, at=NOW - 30 * DAY + 1, thinned=True)
    thin(NOW)
    assert list(Sample.objects.all()) == [kept]


def test_how_long_is_set(vm: VM, settings: Any) -> None:
    make_sample(vm, at=NOW - 3 * HOUR)
    make_sample(vm, at=NOW - 3 * DAY)
    settings.NEXUS = settings.NEXUS.model_copy(
        update={"metrics_full_hours": 2.0, "metrics_days": 2.0}
    )
    thin(NOW)
    assert Sample.objects.get().thinned


def test_vms_are_not_mixed(vm: VM) -> None:
    other = make_vm()
    make_sample(vm, at=NOW - 49 * HOUR, cpu=0.0)
    make_sample(other, at=NOW - 49 * HOUR, cpu=1.0)
    thin(NOW)
    assert {row.vm_id: row.cpu for row in Sample.objects.all()} == {vm.pk: 0.0, other.pk: 1.0}


def test_a_long_absence_is_made_up_for_in_small_transactions(
    vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    minutes_of(vm, NOW - 54 * HOUR, 6 * HOUR)
    monkeypatch.setattr(metrics_retention, "MOST_BATCHES", 2)
    thin(NOW)
    assert Sample.objects.filter(thinned=True).count() == 48
    thin(NOW)
    assert Sample.objects.filter(thinned=True).count() == 72
    assert not Sample.objects.filter(thinned=False).exists()


def test_samples_are_found_by_the_whole_index(vm: VM) -> None:
    found = Sample.objects.filter(vm__in=[vm.pk], thinned__in=FULL, at__gte=NOW).explain()
    assert "vm_id=? AND thinned=? AND at>?" in found
    assert "vm_id=? AND thinned=? AND at>?" in samples_of(vm.pk).filter(at__gt=NOW).explain()


def test_the_worker_does_it_every_five_minutes(vm: VM) -> None:
    make_sample(vm, at=int(time.time()) - 49 * HOUR)
    tasks.thin_metrics.call_local()
    assert Sample.objects.get().thinned

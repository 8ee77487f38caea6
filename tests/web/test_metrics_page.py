"""The charts of a VM, what it uses now, the bars of the list, and ``/metrics``."""

from __future__ import annotations

import json
import re
import time
from datetime import timedelta
from typing import Any

import pytest
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from prometheus_client.parser import text_string_to_metric_families
from pytest_django import DjangoAssertNumQueries

from nexus_site.core import auth
from tests.factories import make_sample, make_vm
from tests.web.conftest import htmx, make_ready_vm
from vms import sampling
from vms.hypervisors import monitor
from vms.models import VM, Boot, Transition
from vms.states import State

pytestmark = [pytest.mark.django_db, pytest.mark.usefixtures("nudges")]

HOSTILE = '<script>"\\\n} nexus_vm_ready{name="x"} 1'
HEARTBEAT = {
    "uptime": 9.0,
    "time": 1.0,
    "load": [0.1, 0.2, 0.3],
    "memory_total": 256 << 20,
    "memory_available": 156 << 20,
    "disks": [{"path": "/", "total": 8 << 30, "free": 6 << 30}],
    "cpu": {"user": 250, "system": 50, "idle": 9000, "iowait": 0, "steal": 0, "count": 1},
    "network": [
        {"name": name, "rx_bytes": rx, "tx_bytes": 7} for name, rx in (("eth0", 1000), ("br0", 5))
    ],
    "io": [{"device": "vda", "read_bytes": 10, "write_bytes": 20}],
}


@pytest.fixture
def vm() -> VM:
    return make_ready_vm(name="hello", heartbeat=HEARTBEAT, heartbeat_at=timezone.now())


def html_of(client: Client, address: str, **headers: Any) -> str:
    response = client.get(address, headers=headers or None)
    assert response.status_code == 200
    return response.content.decode()


def document_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script id="metrics" type="application/json">(.*?)</script>', html)
    assert found
    document: dict[str, Any] = json.loads(found[1])
    return document


def cells(html: str, column: str) -> list[str]:
    """What the table says of a column: now, on average, at most."""
    found = re.findall(rf'<td data-value="{column} (?:now|avg|max)">\s*(.*?)\s*</td>', html)
    assert len(found) == 3
    return found


# The page


def test_the_numbers_are_there_without_a_canvas(client: Client, vm: VM) -> None:
    now = int(time.time())
    make_sample(vm, at=now - 60, cpu=0.1, net_rx=None)
    make_sample(vm, at=now, cpu=0.3, net_rx=2_097_152.0, vmm_cpu=1.5)
    html = html_of(client, f"/vms/{vm.ref}/metrics/")
    assert cells(html, "cpu") == ["30 %", "20 %", "30 %"]
    assert cells(html, "net_rx") == ["2 MiB/s"] * 3
    assert cells(html, "memory_used") == ["100 MiB"] * 3
    assert cells(html, "vmm_cpu") == ["1.50", "1.00", "1.50"]
    document = document_of(html)
    assert document["cpu"] == [0.1, None, 0.3]
    assert document["colours"]["ready"] == "green"
    assert [move["to_state"] for move in document["transitions"]][-1] == "ready"


def test_nothing_measured_is_said(client: Client, vm: VM) -> None:
    html = html_of(client, f"/vms/{vm.ref}/metrics/")
    assert "Nothing was measured" in html
    assert re.search(r'id="charts"[^>]* hidden', html)
    assert not re.search(r'id="no-metrics"[^>]* hidden', html)
    assert cells(html, "cpu") == ["–"] * 3


@pytest.mark.parametrize(
    ("query", "current", "seconds"),
    [("", "1 h", 3600), ("?range=30d", "30 days", 30 * 86400), ("?range=<b>", "1 h", 3600)],
)
def test_the_range_is_in_the_address(
    client: Client, vm: VM, query: str, current: str, seconds: int
) -> None:
    make_sample(vm)
    html = html_of(client, f"/vms/{vm.ref}/metrics/{query}")
    assert re.findall(r'aria-current="page">([^<]*)</a></?', html)[-1] == current
    assert f'data-seconds="{seconds}"' in html
    assert "<b>" not in html


def test_reasons_of_strangers_stay_text(client: Client, vm: VM) -> None:
    Transition.objects.create(vm=vm, to_state=State.CRASHED, reason="</script><b>x", actor="system")
    html = html_of(client, f"/vms/{vm.ref}/metrics/")
    assert "</script><b>" not in html
    assert "<b>" not in html
    assert document_of(html)["transitions"][-1]["reason"] == "</script><b>x"


def test_a_fragment_alone_measures_nothing(client: Client, vm: VM) -> None:
    headers = htmx(**{"Nexus-Fragments": "vms-moves"})
    with CaptureQueriesContext(connection) as queries:
        html = html_of(client, f"/vms/{vm.ref}/metrics/", **headers)
    assert 'hx-target="#vms-moves"' in html
    assert not [one for one in queries if "vms_sample" in one["sql"]]


def test_a_long_past_costs_no_more(
    client: Client, vm: VM, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    now = int(time.time())
    for ago in range(0, 3000, 10):
        make_sample(vm, at=now - ago)
    with django_assert_max_num_queries(20):
        html_of(client, f"/vms/{vm.ref}/metrics/?range=48h")


def test_a_stranger_is_sent_to_sign_in(stranger: Client, vm: VM) -> None:
    assert stranger.get(f"/vms/{vm.ref}/metrics/").status_code == 302


# The overview and the list


def test_the_overview_says_what_it_uses_now(client: Client, vm: VM) -> None:
    make_sample(vm, cpu=0.42, disk_write=2048.0)
    html = html_of(client, f"/vms/{vm.ref}/")
    now = " ".join(html.partition('id="vms-usage"')[2].partition("</section>")[0].split())
    for words in ("42 %", "100 MiB of 256 MiB", "2 GiB of 8 GiB", "2 KiB/s written", "1 KiB/s in"):
        assert words in now
    VM.objects.filter(pk=vm.pk).update(state=State.STOPPED)
    assert re.search(r'<section id="vms-usage" hidden', html_of(client, f"/vms/{vm.ref}/"))


def bars(html: str) -> dict[str, tuple[str, bool]]:
    """Of the list's bars: the values, and whether they are hidden."""
    found = re.findall(r'<progress [^>]*value="(\d+)"[^>]*data-usage="(\w+)"( hidden)?', html)
    return {kind: (value, bool(hidden)) for value, kind, hidden in found}


def test_the_list_has_bars_of_what_was_measured_just_now(client: Client, vm: VM) -> None:
    make_sample(vm, at=int(time.time()) - 5, cpu=0.9)
    make_sample(vm, cpu=0.25)
    assert bars(html_of(client, "/vms/")) == {"cpu": ("25", False), "memory": ("39", False)}


@pytest.mark.parametrize(
    ("state", "ago", "cpu", "shown"),
    [
        (State.READY, 600, 0.25, {"cpu": False, "memory": False}),
        (State.UNREACHABLE, 0, 0.25, {"cpu": False, "memory": False}),
        (State.READY, 0, None, {"cpu": False, "memory": True}),
    ],
)
def test_a_bar_of_what_is_not_known_is_hidden(
    client: Client, state: State, ago: int, cpu: float | None, shown: dict[str, bool]
) -> None:
    make_sample(make_vm(state=state), at=int(time.time()) - ago, cpu=cpu)
    found = bars(html_of(client, "/vms/"))
    assert {kind: not hidden for kind, (_, hidden) in found.items()} == shown


# Prometheus


def scrape(client: Client, **headers: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Every sample: by its name and the values of its labels in the order of their names."""
    response = client.get("/metrics", headers=headers or None)
    assert response.status_code == 200
    assert response["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(response.content.decode()))
    assert all(family.name.startswith("nexus_") for family in families)
    samples = [sample for family in families for sample in family.samples]
    found = {
        (sample.name, tuple(value for _, value in sorted(sample.labels.items()))): sample.value
        for sample in samples
    }
    assert len(found) == len(samples), "no series comes twice"
    return found


def test_metrics_are_for_prometheus(client: Client, vm: VM) -> None:
    found = scrape(client)
    key = (vm.ref, "hello")
    assert found["nexus_vms", ("ready",)] == 1
    assert found["nexus_vms", ("failed",)] == 0
    assert found["nexus_worker_up", ()] in (0, 1)
    assert found["nexus_drives", ()] == 1
    assert found["nexus_drives_size_bytes", ()] == 8 << 30
    assert found["nexus_operations", ("running",)] == 0
    assert found["nexus_vm_ready", key] == 1
    assert found["nexus_vm_boots_total", key] == 1
    assert found["nexus_vm_cpu_seconds_total", (vm.ref, "user", "hello")] == 2.5
    assert found["nexus_vm_memory_bytes", key] == 256 << 20
    assert found["nexus_vm_disk_written_bytes_total", key] == 20
    assert found["nexus_vm_network_received_bytes_total", key] == 1000, "eth0 alone"


def test_a_vmm_is_measured_where_it_runs(
    client: Client, vm: VM, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = {"vm_dir": "/x", "pid": 1, "started": monitor.start_time(1), "accelerator": "kvm"}
    handle |= {"monitor_pid": 1, "monitor_started": 1}
    Boot.objects.filter(vm=vm).update(handle=handle)
    found = scrape(client)
    assert found["nexus_vm_vmm_memory_bytes", (vm.ref, "hello")] > 0
    monkeypatch.setattr(sampling.monitor, "runs", lambda pid, started: False)
    assert ("nexus_vm_vmm_memory_bytes", (vm.ref, "hello")) not in scrape(client)


def test_hostile_names_forge_nothing(client: Client, vm: VM) -> None:
    said = HEARTBEAT | {"io": [{"device": "vda" + HOSTILE, "read_bytes": 1, "write_bytes": 1}] * 2}
    VM.objects.filter(pk=vm.pk).update(name=HOSTILE, heartbeat=said)
    found = scrape(client)
    assert found["nexus_vm_ready", (vm.ref, HOSTILE)] == 1
    assert [labels for name, labels in found if name == "nexus_vm_ready"] == [(vm.ref, HOSTILE)]


def test_a_vm_that_says_little_has_few_series(client: Client, vm: VM) -> None:
    old = {"memory_total": 5, "memory_available": 3}
    VM.objects.filter(pk=vm.pk).update(heartbeat=old)
    silent = make_vm(name="silent", state=State.STOPPED, heartbeat=HEARTBEAT)
    names = {(name, labels[0]) for name, labels in scrape(client) if labels}
    assert ("nexus_vm_memory_bytes", vm.ref) in names
    assert ("nexus_vm_disk_read_bytes_total", vm.ref) not in names
    assert ("nexus_vm_memory_bytes", silent.ref) not in names
    assert ("nexus_vm_ready", silent.ref) in names


def test_many_vms_cost_no_more_queries(
    client: Client, vm: VM, django_assert_max_num_queries: DjangoAssertNumQueries
) -> None:
    for _ in range(30):
        make_ready_vm(heartbeat=HEARTBEAT, heartbeat_at=timezone.now())
    with django_assert_max_num_queries(9):
        assert len(scrape(client)) > 30


def test_a_token_of_the_smallest_scope_is_enough_and_none_is_not(stranger: Client, vm: VM) -> None:
    refused = stranger.get("/metrics")
    assert refused.status_code == 401
    assert refused["WWW-Authenticate"] == "Bearer"
    assert refused.json()["code"] == "not-signed-in"
    _, secret = auth.create_token("prometheus", "read", timedelta(days=1))
    assert scrape(stranger, Authorization=f"Bearer {secret}")
    assert stranger.get("/metrics", headers={"Authorization": "Bearer no"}).status_code == 401
    assert (
        stranger.post("/metrics", headers={"Authorization": f"Bearer {secret}"}).status_code == 405
    )

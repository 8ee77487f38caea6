"""What a real VM uses: measured, kept, listed, and told Prometheus."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from bench.server import Server
from tests.servers import PATIENCE

BUSY = "while :; do :; done & echo $!"


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.5)


def metrics(server: Server, vm: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = server.get(f"/v1/vms/{vm['id']}/metrics?points=2000")
    return found


def usage(server: Server, vm: dict[str, Any]) -> dict[str, Any]:
    """What the VM uses now; nothing until that was measured."""
    rows = server.get(f"/v1/metrics/vms?vm={vm['id']}")["items"]
    return dict(rows[0]["usage"] or {}) if rows else {}


def sh(server: Server, vm: dict[str, Any], script: str) -> str:
    answer = server.post(f"/v1/vms/{vm['id']}/exec", argv=["sh", "-c", script])
    assert answer["exit_code"] == 0, answer
    return str(answer["stdout"]).strip()


def scrape(server: Server, vm: dict[str, Any]) -> dict[str, float]:
    """The samples that are about the VM, by name; modes of processors by name and mode."""
    token = (server.data_dir / "token").read_text().strip()
    request = urllib.request.Request(server.url + "/metrics")
    request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
        families = list(text_string_to_metric_families(answer.read().decode()))
    return {
        sample.name + sample.labels.get("mode", ""): sample.value
        for family in families
        for sample in family.samples
        if sample.labels.get("id") == vm["id"]
    }


def test_a_busy_guest_is_seen_to_be_busy(server: Server, vm: dict[str, Any]) -> None:
    loop = sh(server, vm, BUSY)
    until(lambda: (usage(server, vm).get("cpu") or 0) > 0.6)
    until(lambda: (usage(server, vm).get("vmm_cpu") or 0) > 0.1)
    sh(server, vm, f"kill {loop}")
    until(lambda: (usage(server, vm).get("cpu") or 1) < 0.5)
    found = metrics(server, vm)
    assert found["summary"]["cpu"]["max"] > 0.6
    assert found["transitions"][-1]["to_state"] == "ready"
    assert len(found["at"]) == len(found["cpu"]) > 2


def test_memory_is_measured_inside_and_outside(server: Server, vm: dict[str, Any]) -> None:
    until(lambda: usage(server, vm).get("memory_used") is not None)
    now = usage(server, vm)
    assert 0 < now["memory_used"] < now["memory_total"] <= 256 << 20
    assert now["vmm_memory"] > 16 << 20


def test_what_is_written_and_received_shows(server: Server, vm: dict[str, Any]) -> None:
    sh(server, vm, "dd if=/dev/zero of=/root/data bs=1M count=40 conv=fsync && sync")
    until(lambda: (metrics(server, vm)["summary"]["disk_write"]["max"] or 0) > 1 << 20)
    assert metrics(server, vm)["summary"]["net_rx"]["max"] is not None


def test_prometheus_gets_the_guest_s_own_counters(server: Server, vm: dict[str, Any]) -> None:
    until(lambda: scrape(server, vm)["nexus_vm_disk_written_bytes_total"] > 40 << 20)
    before = scrape(server, vm)
    assert before["nexus_vm_ready"] == 1
    assert before["nexus_vm_boots_total"] == 1
    assert before["nexus_vm_memory_bytes"] > before["nexus_vm_memory_available_bytes"] > 0
    assert before["nexus_vm_vmm_cpu_seconds_total"] > 0
    total = "nexus_vm_cpu_seconds_totalidle"
    until(lambda: scrape(server, vm)[total] > before[total])


def test_a_restart_is_no_step_backwards(server: Server, vm: dict[str, Any]) -> None:
    server.ctl("vm", "restart", vm["id"])
    boots = scrape(server, vm)["nexus_vm_boots_total"]
    assert boots == 2
    until(lambda: usage(server, vm).get("cpu") is not None)
    found = metrics(server, vm)
    values = [value for name in ("cpu", "disk_write", "net_rx", "vmm_cpu") for value in found[name]]
    assert min(value for value in values if value is not None) >= 0


def test_top_lists_it(server: Server, vm: dict[str, Any]) -> None:
    rows = server.ctl("vm", "top", "--once")
    assert vm["id"] in [row["id"] for row in rows]
    assert server.ctl("vm", "metrics", vm["id"])["at"]

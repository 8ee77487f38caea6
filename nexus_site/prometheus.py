"""What Nexus measures, for Prometheus: ``/metrics``, in its text format.

Values are read from the database when they are asked for, in a fixed number of queries. What
guests tell names no series: a guest could make any number of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from django.db.models import Count, Max, Sum
from django.http import HttpRequest, HttpResponse
from django.views.decorators.http import require_safe
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from drives.services import drive_list
from nexus_site.core.life import worker_life
from nexus_site.core.models import Operation
from nexus_site.core.problems import respond, unauthenticated
from nexusctl import __version__
from vms import queries
from vms.hypervisors.base import Handle
from vms.models import VM, Boot
from vms.sampling import GuestCounters, VmmUsage
from vms.states import ALIVE, State

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MIB = 1 << 20
CPU_MODES = ("user", "system", "idle", "iowait", "steal")


@require_safe
def prometheus(request: HttpRequest) -> HttpResponse:
    """All metrics, for callers with the scope ``read``."""
    if request.caller is None:  # type: ignore[attr-defined]
        return respond(unauthenticated())
    registry = CollectorRegistry(auto_describe=False)
    registry.register(NexusCollector())
    return HttpResponse(generate_latest(registry), content_type=CONTENT_TYPE)


class NexusCollector(Collector):
    """Nexus as a whole, then every VM."""

    def collect(self) -> Iterator[Metric]:
        yield from _nexus()
        vms = list(
            VM.objects.shown().only("id", "name", "state", "heartbeat", "heartbeat_at", *_SHAPE)
        )
        yield from _every_vm(vms)
        alive = [vm for vm in vms if vm.state in ALIVE]
        yield from _guests([vm for vm in alive if vm.heartbeat])
        yield from _vmms(alive)


_SHAPE = ("vcpu_count", "mem_size_mib")

# Nexus


def _nexus() -> Iterator[Metric]:
    yield _gauge("nexus_build_info", "The version that runs.", {__version__: 1}, "version")
    up = int(worker_life().alive)
    yield GaugeMetricFamily(
        "nexus_worker_up", "Whether the worker, which does all work, is there.", up
    )
    yield _gauge("nexus_vms", "VMs by state.", queries.counts_by_state(), "state")
    yield _gauge("nexus_operations", "Operations by state.", _operations(), "state")
    pools = queries.pool_counts()
    ready = {name: count for name, count, _ in pools}
    yield _gauge("nexus_pool_ready", "VMs that wait in a pool, and are ready.", ready, "pool")
    sizes = {name: size for name, _, size in pools}
    yield _gauge("nexus_pool_size", "VMs that are to wait in it.", sizes, "pool")
    drives = drive_list().aggregate(count=Count("pk"), size=Sum("size_bytes", default=0))
    yield GaugeMetricFamily("nexus_drives", "Drives.", drives["count"])
    yield GaugeMetricFamily(
        "nexus_drives_size_bytes", "What guests see of all drives.", drives["size"]
    )


def _operations() -> dict[str, int]:
    rows = Operation.objects.order_by().values_list("state").annotate(count=Count("pk"))
    return dict.fromkeys(Operation.State.values, 0) | dict(rows)


def _gauge(name: str, help_text: str, values: Mapping[str, int], label: str) -> Metric:
    family = GaugeMetricFamily(name, help_text, labels=[label])
    for value, number in values.items():
        family.add_metric([value], number)
    return family


# VMs


class Families:
    """Metrics of VMs, each labelled with ID and name, in the order they are added in."""

    def __init__(self) -> None:
        self._families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}

    def add(self, vm: VM, name: str, help_text: str, value: float | None, **labels: str) -> None:
        """A value of one VM; a name with ``_total`` is that of a counter. None is left out."""
        kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
        if name not in self._families:
            self._families[name] = kind(name, help_text, labels=["id", "name", *labels])
        if value is not None:
            self._families[name].add_metric([vm.ref, vm.name, *labels.values()], value)

    def __iter__(self) -> Iterator[Metric]:
        return iter(self._families.values())


def _every_vm(vms: Iterable[VM]) -> Iterable[Metric]:
    boots = dict(Boot.objects.order_by().values_list("vm").annotate(last=Max("number")))
    found = Families()
    for vm in vms:
        found.add(vm, "nexus_vm_ready", "Whether its agent answers.", vm.state == State.READY)
        found.add(vm, "nexus_vm_vcpus", "Its processors.", vm.vcpu_count)
        found.add(vm, "nexus_vm_memory_limit_bytes", "Its memory.", vm.mem_size_mib * MIB)
        found.add(vm, "nexus_vm_boots_total", "How often it was started.", boots.get(vm.pk, 0))
    return found


def _guests(vms: Iterable[VM]) -> Iterable[Metric]:
    """What guests said in their last heartbeats."""
    found = Families()
    for vm in vms:
        _add_guest(found, vm, vm.heartbeat)
    return found


def _add_guest(found: Families, vm: VM, said: Mapping[str, Any]) -> None:
    heard = vm.heartbeat_at.timestamp() if vm.heartbeat_at else None
    found.add(vm, "nexus_vm_heartbeat_timestamp_seconds", "When its agent was heard last.", heard)
    for mode in CPU_MODES if said.get("cpu") else ():
        seconds = said["cpu"][mode] / 100
        found.add(vm, "nexus_vm_cpu_seconds_total", "What its processors did.", seconds, mode=mode)
    total, available = said.get("memory_total"), said.get("memory_available")
    found.add(vm, "nexus_vm_memory_bytes", "Memory that the guest sees.", total)
    found.add(vm, "nexus_vm_memory_available_bytes", "Memory that programs could have.", available)
    counters = GuestCounters.of(said)
    for name, help_text, counts in (
        ("nexus_vm_disk_read_bytes_total", "Read from drives.", counters.disk_read),
        ("nexus_vm_disk_written_bytes_total", "Written to drives.", counters.disk_write),
        ("nexus_vm_network_received_bytes_total", "Received.", counters.net_rx),
        ("nexus_vm_network_sent_bytes_total", "Sent.", counters.net_tx),
    ):
        found.add(vm, name, help_text, sum(counts.values()) if counts else None)


def _vmms(vms: Iterable[VM]) -> Iterable[Metric]:
    """What the host says of the VMMs."""
    running = Boot.objects.filter(ended_at=None, vm__state__in=ALIVE).exclude(handle={})
    handles = dict(running.order_by("number").values_list("vm", "handle"))
    found = Families()
    for vm in vms:
        handle = handles.get(vm.pk)
        usage = VmmUsage.of(Handle.from_dict(handle)) if handle else None
        if usage is None:
            continue
        found.add(
            vm, "nexus_vm_vmm_cpu_seconds_total", "Of the host's processors.", usage.cpu_seconds
        )
        found.add(vm, "nexus_vm_vmm_memory_bytes", "Of the host's memory.", usage.memory)
    return found

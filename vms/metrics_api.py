"""What VMs use over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.http import HttpRequest
from django.utils import timezone
from ninja import Field, Query, Router

from nexus_site.core.ids import decode, is_id, resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import Page
from vms.metrics_schemas import MetricsOut, MetricsQuery, VMUsageOut
from vms.models import VM
from vms.services import metrics
from vms.states import WITH_VMM

router = Router()

USUAL_SPAN = timedelta(hours=1)


class UsageQuery(PageQuery):
    vm: list[str] = Field([], max_length=200, description="Only the VMs with these IDs.")


@router.get("/vms/{ref}/metrics", response=MetricsOut, by_alias=True)
def get_vm_metrics(request: HttpRequest, ref: str, query: Query[MetricsQuery]) -> Any:
    """What a VM used over time: guest and VMM, and the moves of its state in that time."""
    vm = resolve(VM.objects.all(), ref)
    end = query.end or timezone.now()
    start = query.start or end - USUAL_SPAN
    return MetricsOut.of(metrics.metrics_of(vm, start, end, query.points))


@router.get("/metrics/vms", response=Page[VMUsageOut])
def list_vm_usage(request: HttpRequest, query: Query[UsageQuery]) -> Slice:
    """What every VM that has a VMM uses now."""
    rows = metrics.with_usage(VM.objects.shown().filter(state__in=WITH_VMM))
    if query.vm:
        rows = rows.filter(pk__in=[decode(ref) for ref in query.vm if is_id(ref)])
    return paginate(rows, query, "name", "state_since")

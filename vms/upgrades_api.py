"""Agents of running VMs over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.schemas import ChangeQuery
from vms import services
from vms.models import VM

router = Router(tags=["VMs"])


@router.post("/vms/{ref}/agent-upgrade", response=STARTED)
def upgrade_agent(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Put this server's agent in the place of a running VM's, while the guest goes on."""
    vm = resolve(VM.objects.shown(), ref)
    return carry_out(request, query, lambda: services.upgrade_agent(vm))

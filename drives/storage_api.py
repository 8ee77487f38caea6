"""The storage of this host over HTTP. Changing it is for those who administer."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from drives import services
from drives.schemas import InitStorage, ReportOut, StorageOut
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.problems import BearerToken
from nexus_site.core.schemas import ChangeQuery

router = Router(tags=["storage"])


@router.get("/storage", response=StorageOut)
def get_storage(request: HttpRequest) -> services.StorageStatus:
    """The backend, how full it is, and what each drive and snapshot takes."""
    return services.storage_status()


@router.get("/storage/check", response=ReportOut)
def check_storage(request: HttpRequest) -> services.Report:
    """Compare database and disk, both ways; changes nothing."""
    return services.check_storage()


@router.post("/storage/repair", response=STARTED, auth=BearerToken("admin"))
def repair_storage(request: HttpRequest, query: Query[ChangeQuery]) -> HttpResponse:
    """Do what the check proposes for each problem that it finds."""
    return carry_out(request, query, services.repair_storage)


@router.post("/storage/init", response=STARTED, auth=BearerToken("admin"))
def init_storage(
    request: HttpRequest, data: InitStorage, query: Query[ChangeQuery]
) -> HttpResponse:
    """Make a btrfs in a file, and keep drives in it; there must be none yet. Needs root."""
    return carry_out(request, query, lambda: services.init_pool(data.size_mib))

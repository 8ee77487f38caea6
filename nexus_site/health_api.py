"""The health of this host over HTTP."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from django.http import HttpRequest, HttpResponse
from ninja import Field, Query, Router, Schema

from nexus_site import health
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.schemas import ChangeQuery

router = Router(tags=["administration"])

State = Literal["fine", "limited", "missing"]


class WorkerOut(Schema):
    """Whether the worker, which does all work, is there."""

    alive: bool
    pid: int | None
    since: datetime | None = Field(
        description="Alive: when it started; else when it was last seen, null for never."
    )


class FindingOut(Schema):
    """What one probe found."""

    key: str
    title: str
    state: State
    found: str
    meaning: str = Field(description="What that is to those who use VMs here.")
    fix: str
    command: str = Field(description="What to type to put it right, where there is a command.")


class DoctorOut(Schema):
    """Every probe of this host."""

    state: State = Field(description="The worst of all findings.")
    looked_at: datetime | None = Field(description="When the worker looked; null for not yet.")
    findings: list[FindingOut]


@router.get("/doctor", response=DoctorOut)
def get_doctor(request: HttpRequest) -> Any:
    """Every probe of this host: what was found, what it means, and how to put it right."""
    return health.report()


@router.post("/doctor", response=STARTED)
def look_again(request: HttpRequest, query: Query[ChangeQuery]) -> HttpResponse:
    """Have the worker ask every probe again now."""
    return carry_out(request, query, health.look_again)

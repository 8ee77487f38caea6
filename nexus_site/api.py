"""The JSON API: every room's endpoints under one roof, at ``/v1/``."""

from __future__ import annotations

from typing import Any

from django.http import HttpRequest
from django.urls import URLPattern, URLResolver
from ninja import NinjaAPI, Router, Schema
from ninja.openapi.schema import OpenAPISchema
from ninja.operation import Operation as Endpoint

from builds.api import router as builds_router
from drives.api import router as drives_router
from drives.snapshots_api import router as snapshots_router
from drives.storage_api import router as storage_router
from drives.transfers_api import router as transfers_router
from images.api import router as images_router
from nexus_site.core import events
from nexus_site.core.api import admin_router
from nexus_site.core.api import router as core_router
from nexus_site.core.errors import NotFound
from nexus_site.core.life import worker_life
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operations
from nexus_site.core.problems import (
    BearerToken,
    answer_with_problems,
    guard_docs,
    with_problem_405,
)
from nexus_site.core.schemas import Problem
from nexus_site.health_api import WorkerOut
from nexus_site.health_api import router as health_router
from nexusctl import __version__
from vms import services as vm_services
from vms.api import drive_router as vm_drives_router
from vms.api import router as vms_router
from vms.pools_api import router as pools_router
from vms.shortcuts_api import router as shortcuts_router
from vms.warm_api import router as warm_router

ANY_METHOD = ["GET", "POST", "PUT", "PATCH", "DELETE"]
IDEMPOTENCY_KEY = {
    "in": "header",
    "name": "Idempotency-Key",
    "schema": {"type": "string", "maxLength": 200},
    "required": False,
    "description": "Sent again with the same key, the request answers with its first operation.",
}


class NexusAPI(NinjaAPI):
    """Ninja's API with problem documents for everything, and an OpenAPI document that says so."""

    @property
    def urls(self) -> tuple[list[URLResolver | URLPattern], str, str]:
        patterns, app_name, namespace = super().urls
        for pattern in patterns:
            if isinstance(pattern, URLPattern):
                pattern.callback = with_problem_405(pattern.callback)
        return patterns, app_name, namespace

    def get_openapi_operation_id(self, operation: Endpoint) -> str:
        return operation.view_func.__name__

    def get_openapi_schema(self, **kwargs: Any) -> OpenAPISchema:
        document = super().get_openapi_schema(**kwargs)
        document.add_schema_definitions({"Problem": Problem.json_schema()})
        problem = {"schema": {"$ref": "#/components/schemas/Problem"}}
        for methods in document["paths"].values():
            for method, endpoint in methods.items():
                endpoint["summary"] = _title(endpoint["operationId"])
                endpoint["responses"]["default"] = {
                    "description": "What went wrong",
                    "content": {"application/problem+json": problem},
                }
                if method == "post" and 202 in endpoint["responses"]:
                    endpoint["parameters"].append(IDEMPOTENCY_KEY)
        return document


def _title(name: str) -> str:
    """``create_vm`` as people write it: ``Create VM``."""
    text = " ".join({"vm": "VM", "vms": "VMs"}.get(word, word) for word in name.split("_"))
    return text[0].upper() + text[1:]


api = NexusAPI(
    title="Nexus",
    version=__version__,
    description="MicroVMs for AI agents. Everything that the dashboard and nexusctl do.",
    urls_namespace="api",
    auth=BearerToken(),
    docs_decorator=guard_docs,
)
answer_with_problems(api)
status_router = Router(tags=["administration"])
last_router = Router()


class HostOut(Schema):
    """What the host has; ``assigned`` counts the VMs that have a VMM."""

    cpus: int
    cpus_assigned: int
    memory_mib: int
    memory_available_mib: int
    memory_assigned_mib: int
    disk_total_bytes: int
    disk_free_bytes: int
    load_1m: float


class StatusOut(Schema):
    version: str
    vms: dict[str, int]
    operations: dict[str, int]
    worker: WorkerOut
    host: HostOut
    last_event: int


@status_router.get("/status", response=StatusOut)
def get_status(request: HttpRequest) -> dict[str, Any]:
    """The server at a glance: VMs by state, work under way, the host's capacity."""
    return {
        "version": __version__,
        "vms": vm_services.counts_by_state(),
        "operations": {
            state: open_operations().filter(state=state).count()
            for state in (Operation.State.QUEUED, Operation.State.RUNNING)
        },
        "worker": worker_life(),
        "host": vm_services.host_capacity(),
        "last_event": events.last_seq(),
    }


@last_router.api_operation(ANY_METHOD, "/", include_in_schema=False)
def no_endpoint(request: HttpRequest) -> None:
    raise _no_such_endpoint("")


@last_router.api_operation(ANY_METHOD, "/{path:rest}", include_in_schema=False)
def no_endpoint_there(request: HttpRequest, rest: str) -> None:
    raise _no_such_endpoint(rest[:100])


def _no_such_endpoint(path: str) -> NotFound:
    return NotFound(
        f"The API has nothing at “/v1/{path}”.",
        hint="All endpoints are at /v1/docs.",
        code="no-such-endpoint",
    )


for router in (
    shortcuts_router,  # before the others: its paths name what a {ref} there could be
    transfers_router,  # likewise
    vms_router,
    warm_router,
    pools_router,
    drives_router,
    snapshots_router,
    storage_router,
    vm_drives_router,
    images_router,
    builds_router,
    core_router,
    status_router,
    health_router,
    admin_router,
    last_router,
):
    api.add_router("", router)

"""Pools over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from builds.models import Template
from images.models import Image
from nexus_site.core.http import STARTED, carry_out, wait_for_end
from nexus_site.core.ids import resolve
from nexus_site.core.models import Operation
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, OperationOut, Page, Plan
from vms import queries
from vms.models import VM, Pool
from vms.pools_schemas import CreatePool, PoolOut, TakeVM, UpdatePool
from vms.schemas import VMDetail
from vms.services import pools
from vms.shape import shape_in

router = Router(tags=["pools"])

TELLING = 10.0  # seconds that an answer waits for the guest to know its name
TAKEN = {200: OperationOut | Plan, 201: VMDetail, 202: OperationOut}


@router.get("/pools", response=Page[PoolOut])
def list_pools(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    """Pools with the VMs that wait in them, newest first."""
    return paginate(queries.pools(), query, "-created_at", "name", "size", "taken")


@router.post("/pools", response={200: Plan, 201: PoolOut})
def create_pool(request: HttpRequest, data: CreatePool, query: Query[ChangeQuery]) -> HttpResponse:
    """Keep so many VMs of an image ready; they are made in the background, as there is room."""
    image = resolve(Image.objects.all(), data.image) if data.image else None
    template = resolve(Template.objects.all(), data.template) if data.template else None

    def change() -> Pool:
        shape = shape_in(data.model_dump())
        pool = pools.create_pool(
            data.name, image=image, template=template, size=data.size, shape=shape
        )
        return queries.pools().get(pk=pool.pk)

    return carry_out(request, query, change, shown_as=PoolOut, status=201)


@router.get("/pools/{ref}", response=PoolOut)
def get_pool(request: HttpRequest, ref: str) -> Pool:
    return resolve(queries.pools(), ref)


@router.patch("/pools/{ref}", response={200: PoolOut | Plan})
def update_pool(
    request: HttpRequest, ref: str, data: UpdatePool, query: Query[ChangeQuery]
) -> HttpResponse:
    """Rename or resize a pool; it tries again at once what it has failed to make."""
    pool = resolve(Pool.objects.all(), ref)

    def change() -> Pool:
        pools.update_pool(pool, **data.model_dump())
        return queries.pools().get(pk=pool.pk)

    return carry_out(request, query, change, shown_as=PoolOut)


@router.delete("/pools/{ref}", response=STARTED)
def delete_pool(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete a pool with the VMs that wait in it; those that were taken stay."""
    pool = resolve(Pool.objects.all(), ref)
    return carry_out(request, query, lambda: pools.delete_pool(pool))


@router.post("/pools/{ref}/take", response=TAKEN)
def take_vm(
    request: HttpRequest,
    ref: str,
    query: Query[ChangeQuery],
    data: TakeVM = TakeVM(),  # noqa: B008  (ninja reads the default)
) -> HttpResponse:
    """A VM that is ready, and has its name inside too; the pool makes another.

    Where none waits the answer is the problem ``pool-empty`` (409), or with ``or_start`` the
    operation that starts one.
    """
    pool = resolve(Pool.objects.select_related("image"), ref)
    return carry_out(
        request,
        query,
        lambda: pools.take_vm(pool, **data.model_dump()),
        shown_as=VMDetail,
        status=201,
        made_by=_taken,
    )


def _taken(operation: Operation) -> VM | None:
    """What the operation has taken, once its guest knows its name; None for an ordinary start."""
    if operation.kind != pools.TAKE or operation.subject_id is None:
        return None
    wait_for_end(operation, TELLING)
    return resolve(queries.vm_detail(), operation.subject_id)

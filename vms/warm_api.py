"""Warm templates over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from images.models import Image
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page
from vms import queries
from vms.models import WarmTemplate
from vms.services import warm
from vms.shape import shape_in
from vms.warm_schemas import MakeWarmTemplate, WarmTemplateOut

router = Router(tags=["warm templates"])


@router.get("/warm-templates", response=Page[WarmTemplateOut])
def list_warm_templates(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    """What fresh VMs go on from in place of booting, newest first."""
    return paginate(queries.warm_templates(), query, "-created_at", "hits", "last_hit_at")


@router.post("/warm-templates", response=STARTED)
def make_warm_template(
    request: HttpRequest, data: MakeWarmTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """Boot an image once for all VMs of that shape, now; one that has failed is tried again."""
    image = resolve(Image.objects.all(), data.image)
    shape = shape_in(data.model_dump())
    return carry_out(request, query, lambda: warm.make_warm_template(image, shape))


@router.post("/warm-templates/prune", response=STARTED)
def prune_warm_templates(request: HttpRequest, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete those of no use any more, and those that were not used for longest where there are
    more than are kept; ``dry_run`` says which, and why."""
    return carry_out(request, query, warm.prune_warm_templates)


@router.get("/warm-templates/{ref}", response=WarmTemplateOut)
def get_warm_template(request: HttpRequest, ref: str) -> WarmTemplate:
    return resolve(queries.warm_templates(), ref)


@router.delete("/warm-templates/{ref}", response=STARTED)
def delete_warm_template(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    """Delete one with its memory and drive; VMs that went on from it run on."""
    template = resolve(queries.warm_templates(), ref)
    return carry_out(request, query, lambda: warm.delete_warm_template(template))

"""Templates over HTTP."""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from builds import services
from builds.models import Template
from builds.schemas import CreateTemplate, TemplateOut
from images import services as image_services
from images.models import Rootfs
from nexus_site.core.errors import Invalid, NotFound
from nexus_site.core.http import carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.pagination import PageQuery, Slice, paginate
from nexus_site.core.schemas import ChangeQuery, Page

router = Router()

TEMPLATES = Template.objects.prefetch_related("versions__rootfs")


@router.get("/templates", response=Page[TemplateOut])
def list_templates(request: HttpRequest, query: Query[PageQuery]) -> Slice:
    return paginate(TEMPLATES.all(), query, "name", "-created_at")


@router.post("/templates", response={201: TemplateOut})
def create_template(
    request: HttpRequest, data: CreateTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """A template that makes images of a root file system as it is."""
    rootfs = _rootfs(data)
    return carry_out(
        request,
        query,
        lambda: services.create_template(
            name=data.name, rootfs=rootfs, description=data.description
        ),
        shown_as=TemplateOut,
        status=201,
    )


@router.get("/templates/{ref}", response=TemplateOut)
def get_template(request: HttpRequest, ref: str) -> Template:
    return resolve(TEMPLATES.all(), ref)


@router.delete("/templates/{ref}", response={204: None})
def delete_template(request: HttpRequest, ref: str, query: Query[ChangeQuery]) -> HttpResponse:
    template = resolve(Template.objects.all(), ref)
    return carry_out(request, query, lambda: services.delete_template(template))


def _rootfs(data: CreateTemplate) -> Rootfs:
    """The root file system that the request names; it must be on this host."""
    if bool(data.rootfs) == bool(data.distro and data.version):
        raise Invalid("Give either distro and version, or the ID of a rootfs.", code="which-rootfs")
    if data.rootfs:
        return resolve(Rootfs.objects.all(), data.rootfs)
    rootfs = image_services.installed_rootfs(data.distro, data.version)
    if rootfs is None:
        offer = image_services.find_rootfs(data.distro, data.version)
        raise NotFound(
            f"{offer.distro.capitalize()} {offer.version} is not on this host yet.",
            hint=f"Fetch it: nexusctl rootfs download {offer.distro} {offer.version}",
            code="rootfs-not-installed",
        )
    return rootfs

"""Shortcuts over HTTP: an image, a drive or a ready VM, from wherever the caller starts.

They are here, above all the rooms they pass through, and have the paths of what they make.
"""

from __future__ import annotations

from django.http import HttpRequest, HttpResponse
from ninja import Query, Router

from builds.models import Template
from images import uploads
from images.models import Image
from nexus_site.core.http import STARTED, carry_out
from nexus_site.core.ids import resolve
from nexus_site.core.schemas import BINARY_BODY, ChangeQuery
from vms import shortcuts
from vms.shortcuts_schemas import (
    DriveFromImage,
    DriveFromRootfs,
    DriveFromTemplate,
    ImageFromRootfs,
    ImageFromTemplate,
    ImportImageQuery,
    VMFromImage,
    VMFromRootfs,
    VMFromTemplate,
)

router = Router(tags=["shortcuts"])


@router.post("/images/from-rootfs", response=STARTED)
def create_image_from_rootfs(
    request: HttpRequest, data: ImageFromRootfs, query: Query[ChangeQuery]
) -> HttpResponse:
    """An image of a distribution as it is."""
    return carry_out(request, query, lambda: shortcuts.from_rootfs("image", **data.model_dump()))


@router.post("/images/from-template", response=STARTED)
def create_image_from_template(
    request: HttpRequest, data: ImageFromTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """The image of a template, built unless it is there, unchanged."""
    wishes = data.model_dump()
    template = _template(wishes)
    return carry_out(request, query, lambda: shortcuts.from_template("image", template, **wishes))


@router.post("/images/import", response=STARTED, openapi_extra=BINARY_BODY)
def import_image(request: HttpRequest, query: Query[ImportImageQuery]) -> HttpResponse:
    """An image from the file in the request's body: a disk, an archive, a container image."""
    upload = uploads.receive(request, sha256=query.sha256, filename=query.filename)
    try:
        return carry_out(
            request,
            query,
            lambda: shortcuts.import_image(
                upload, name=query.name, format=query.format, checked=bool(query.sha256)
            ),
            content=f"{upload.sha256} {query.name} {query.format}",
        )
    finally:  # refused, a dry run, or the second time that the same was sent
        uploads.discard_unless_named(upload.ref)


@router.post("/drives/from-rootfs", response=STARTED)
def create_drive_from_rootfs(
    request: HttpRequest, data: DriveFromRootfs, query: Query[ChangeQuery]
) -> HttpResponse:
    """A drive of a distribution as it is."""
    return carry_out(request, query, lambda: shortcuts.from_rootfs("drive", **data.model_dump()))


@router.post("/drives/from-template", response=STARTED)
def create_drive_from_template(
    request: HttpRequest, data: DriveFromTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """A drive of a template's image."""
    wishes = data.model_dump()
    template = _template(wishes)
    return carry_out(request, query, lambda: shortcuts.from_template("drive", template, **wishes))


@router.post("/drives/from-image", response=STARTED)
def create_drive_from_image(
    request: HttpRequest, data: DriveFromImage, query: Query[ChangeQuery]
) -> HttpResponse:
    """A drive of an image."""
    wishes = data.model_dump()
    image = resolve(Image.objects.all(), wishes.pop("image"))
    return carry_out(request, query, lambda: shortcuts.from_image("drive", image, **wishes))


@router.post("/vms/from-rootfs", response=STARTED)
def create_vm_from_rootfs(
    request: HttpRequest, data: VMFromRootfs, query: Query[ChangeQuery]
) -> HttpResponse:
    """From a distribution to a ready VM: rootfs, template, build, image, drive, VM, start."""
    return carry_out(request, query, lambda: shortcuts.from_rootfs("vm", **data.model_dump()))


@router.post("/vms/from-template", response=STARTED)
def create_vm_from_template(
    request: HttpRequest, data: VMFromTemplate, query: Query[ChangeQuery]
) -> HttpResponse:
    """From a template to a ready VM."""
    wishes = data.model_dump()
    template = _template(wishes)
    return carry_out(request, query, lambda: shortcuts.from_template("vm", template, **wishes))


@router.post("/vms/from-image", response=STARTED)
def create_vm_from_image(
    request: HttpRequest, data: VMFromImage, query: Query[ChangeQuery]
) -> HttpResponse:
    """From an image to a ready VM."""
    wishes = data.model_dump()
    image = resolve(Image.objects.all(), wishes.pop("image"))
    return carry_out(request, query, lambda: shortcuts.from_image("vm", image, **wishes))


def _template(wishes: dict[str, object]) -> Template:
    """The template that ``wishes`` name; taken out of them."""
    return resolve(Template.objects.prefetch_related("versions"), str(wishes.pop("template")))

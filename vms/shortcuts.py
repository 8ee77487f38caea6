"""Shortcuts: what the user wants (an image, a drive, a VM) from what there is, in one operation."""

from __future__ import annotations

from typing import Any, Literal

from django.db import models, transaction

from builds.models import Template
from drives import services as drive_services
from drives.models import Drive
from images import services as image_services
from images.models import Image
from images.providers.fields import MAX_WORD
from images.services.imports import check_format
from images.uploads import Upload
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import check_name, free_name
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from vms import services
from vms.shape import new_shape, shape_in

Target = Literal["image", "drive", "vm"]
_SHOWN = {"image": "image", "drive": "drive", "vm": "VM"}


@transaction.atomic
def from_rootfs(
    target: Target, distro: str, version: str, *, provider: str = "", **wishes: Any
) -> Operation:
    """An image, a drive or a ready VM from a distribution, fetched and built if need be.

    ``wishes``: ``name``; for a drive ``size_mib``; for a VM its ``Shape`` and a ``kernel``.
    Raises ``NotFound`` (no such distribution), ``Conflict`` (name taken), ``Invalid``.
    """
    found = image_services.installed_rootfs(
        distro, version, provider
    ) or image_services.find_rootfs(distro, version, provider)
    params = {"distro": found.distro, "version": found.version, "provider": provider}
    return _open(target, "rootfs", f"{found.distro.capitalize()} {found.version}", params, wishes)


@transaction.atomic
def from_template(target: Target, template: Template, **wishes: Any) -> Operation:
    """The same from a template: its image is built unless it is there, unchanged."""
    return _open(target, "template", template.name, {"template": template.ref}, wishes)


@transaction.atomic
def from_image(target: Literal["drive", "vm"], image: Image, **wishes: Any) -> Operation:
    """A drive, or a VM that is started, from an image."""
    if size_mib := wishes.get("size_mib"):
        drive_services.check_size(image, size_mib)
    return _open(target, "image", image.name, {"image": image.ref}, wishes)


@transaction.atomic
def import_image(
    upload: Upload, *, name: str = "", format: str = "", checked: bool = False
) -> Operation:
    """An image from an uploaded file, by way of a root file system and a template of its own.

    ``checked``: its sender said its checksum, and it held. Raises ``Conflict`` (name taken),
    ``Invalid``.
    """
    check_format(format)
    name = _name_for("image", name) or free_name(_image_taken)
    params = {
        "upload": upload.ref,
        "filename": upload.filename,
        "sha256": upload.sha256,
        "checked": checked,
        "distro": name[:MAX_WORD],
        "version": upload.sha256[:12],
        "provider": "upload",
        "format": format,
    }
    shown = upload.filename or "a file"
    return _open("image", "upload", shown[:60], params, {"name": name})


def _open(
    target: Target, source: str, shown: str, params: dict[str, Any], wishes: dict[str, Any]
) -> Operation:
    name = _name_for(target, wishes.pop("name", ""))
    if target == "vm":
        wishes |= new_shape(shape_in(wishes))
        if kernel := services.find_kernel(wishes.get("kernel", "")):
            wishes["kernel"] = kernel.ref
    if target == "image":
        params |= {"image_name": name}
    operation = open_operation(
        f"{target}.from-{source}",
        f"Create {_SHOWN[target]} {name} from {shown}".replace("  ", " "),
        params=params | wishes | {"name": name},
    )
    Operation.objects.filter(pk=operation.pk).update(subject_kind=target, subject_name=name)
    operation.subject_kind, operation.subject_name = target, name
    return operation


def _name_for(target: Target, name: str) -> str:
    """``name``, checked and free; generated for a VM. Images and drives may go without."""
    if target == "vm":
        return services.new_name(name)
    if name:
        check_name(name)
        taken = {"image": _image_taken, "drive": _drive_taken}[target]
        if taken(name):
            raise Conflict(
                f"There is {'an' if target == 'image' else 'a'} {target} “{name}” already.",
                hint="Choose another name, or leave it out to get one.",
                code="name-taken",
            )
    return name


def _image_taken(name: str) -> bool:
    return _exists(Image, name)


def _drive_taken(name: str) -> bool:
    return _exists(Drive, name)


def _exists(model: type[models.Model], name: str) -> bool:
    return model._default_manager.filter(name=name).exists()

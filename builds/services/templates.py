"""The rules about templates: what they say is in their versions, which never change."""

from __future__ import annotations

from django.db import transaction
from django.db.models import ProtectedError

from builds.models import Template, TemplateVersion
from images.models import Rootfs
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import check_name, free_name


@transaction.atomic
def create_template(*, name: str = "", rootfs: Rootfs, description: str = "") -> Template:
    """A template whose first version is ``rootfs`` as it is. Raises ``Conflict``, ``Invalid``."""
    if name:
        check_name(name)
        if _template_exists(name):
            raise Conflict(
                f"There is a template “{name}” already.",
                hint="Choose another name, or leave it out to get one.",
                code="name-taken",
            )
    template = Template.objects.create(
        name=free_name(_template_exists, name), description=description
    )
    TemplateVersion.objects.create(template=template, number=1, rootfs=rootfs)
    events.append("template.created", template, rootfs=str(rootfs))
    return template


@transaction.atomic
def delete_template(template: Template) -> None:
    """Delete a template that nothing was built from. Raises ``Conflict`` otherwise."""
    events.append("template.deleted", template)
    try:
        template.delete()
    except ProtectedError as error:
        raise Conflict(
            f"The template “{template.name}” has builds.",
            hint="Its builds say where their images come from, so it is kept with them.",
            code="template-used",
        ) from error


def template_for(rootfs: Rootfs, name: str) -> Template | None:
    """The template called ``name`` if its current version is ``rootfs`` and nothing else."""
    template = Template.objects.prefetch_related("versions").filter(name=name).first()
    if template is None or template.current.rootfs_id != rootfs.pk:
        return None
    return template


def _template_exists(name: str) -> bool:
    return Template.objects.filter(name=name).exists()

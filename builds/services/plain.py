"""Plain templates: a root file system as it is, written by shortcuts for themselves."""

from __future__ import annotations

from django.db import transaction

from builds.models import Template
from builds.services.templates import create_template
from images.models import Rootfs
from nexus_site.core.ids import free_name


def plain_template(rootfs: Rootfs) -> Template | None:
    """A template whose current version is ``rootfs`` and nothing else."""
    found = Template.objects.filter(versions__rootfs=rootfs).distinct().order_by("created_at")
    for template in found.prefetch_related("versions"):
        if template.current.rootfs_id == rootfs.pk and not template.current.recipe:
            return template
    return None


@transaction.atomic
def write_plain_template(rootfs: Rootfs) -> Template:
    """A new one, named after the distribution: ``alpine-3-23``; or the one that came first."""
    if (template := plain_template(rootfs)) is not None:
        return template
    base = f"{rootfs.distro}-{rootfs.version}".lower().replace(".", "-")[:50]
    name = free_name(lambda taken: Template.objects.filter(name=taken).exists(), base)
    return create_template(name=name, rootfs=rootfs)

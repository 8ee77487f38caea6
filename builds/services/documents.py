"""Templates that come as documents, from this server or another one."""

from __future__ import annotations

from django.db import transaction

from builds.models import Template
from builds.services.templates import create_template, update_template
from builds.template_yaml import TemplateDocument
from images import services as image_services
from images.models import Rootfs
from nexus_site.core.errors import Conflict, NotFound


@transaction.atomic
def import_template(document: TemplateDocument, *, replace: bool = False) -> Template:
    """Make the template that ``document`` describes; with ``replace`` a new version of it.

    Raises ``Conflict`` when there is one of its name (without ``replace``) and when the root file
    system differs, ``NotFound`` when that is not on this host.
    """
    existing = Template.objects.filter(name=document.name).first() if document.name else None
    if existing is None:
        return create_template(
            name=document.name,
            rootfs=rootfs_of(document),
            description=document.description,
            recipe=document.recipe,
        )
    if not replace:
        raise Conflict(
            f"There is a template “{document.name}” already.",
            hint="Import it under another name, or say that it replaces that one: --replace",
            code="name-taken",
        )
    return edit_template(existing, document)


def edit_template(
    template: Template, document: TemplateDocument, *, expected_version: int | None = None
) -> Template:
    """Make the template what ``document`` describes; see ``update_template``."""
    return update_template(
        template,
        name=document.name or None,
        description=document.description,
        rootfs=rootfs_of(document),
        recipe=document.recipe,
        expected_version=expected_version,
    )


def rootfs_of(document: TemplateDocument) -> Rootfs:
    """The root file system that a document names, the very same bytes if it says which."""
    wish = document.rootfs
    kept = kept_rootfs(wish.distro, wish.version, wish.provider, wish.sha256)
    if wish.sha256 and kept.sha256 != wish.sha256:
        raise Conflict(
            f"{kept} on this host is not the one that the template was made with.",
            detail=f"here:     {kept.sha256}\ntemplate: {wish.sha256}",
            hint="Leave sha256 out of the document to take the one of this host.",
            code="rootfs-differs",
        )
    return kept


def kept_rootfs(distro: str, version: str, provider: str = "", sha256: str = "") -> Rootfs:
    """The one on this host, with this ``sha256`` or of this ``provider`` if there are several.

    Raises ``NotFound`` that says how to fetch it, or what can be fetched.
    """
    here = Rootfs.objects.filter(
        distro=distro.lower(), version=version, arch=image_services.host_arch()
    )
    same = here.filter(sha256=sha256).first() if sha256 else None
    found = same or here.filter(provider=provider).first()
    if found is None and (not provider or sha256):
        found = image_services.installed_rootfs(distro, version)
    if found is None:
        offer = image_services.find_rootfs(distro, version)
        raise NotFound(
            f"{offer.distro.capitalize()} {offer.version} is not on this host yet.",
            hint=f"Fetch it: nexusctl rootfs download {offer.distro} {offer.version}",
            code="rootfs-not-installed",
        )
    return found

"""The rules about templates: what they say is in their versions, which never change."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from django.db import transaction
from django.db.models import QuerySet

from builds.log import log_path
from builds.models import Build, Template, TemplateVersion
from builds.recipe import Recipe
from images.models import Image, Rootfs
from nexus_site.core import events
from nexus_site.core.errors import Conflict, Invalid, NotFound
from nexus_site.core.ids import check_name, free_name

MAX_DESCRIPTION = 200


@transaction.atomic
def create_template(
    *, name: str = "", rootfs: Rootfs, description: str = "", recipe: Recipe | None = None
) -> Template:
    """A template whose first version is ``recipe`` on ``rootfs``, by default ``rootfs`` as it is.

    Raises ``Conflict``, ``Invalid``.
    """
    if name:
        _require_free(name)
    template = Template.objects.create(
        name=free_name(_template_exists, name), description=_description(description)
    )
    document = recipe.document() if recipe else {}
    TemplateVersion.objects.create(template=template, number=1, rootfs=rootfs, recipe=document)
    events.append("template.created", template, rootfs=str(rootfs))
    return template


@transaction.atomic
def update_template(
    template: Template,
    *,
    name: str | None = None,
    description: str | None = None,
    rootfs: Rootfs | None = None,
    recipe: Recipe | None = None,
    expected_version: int | None = None,
) -> Template:
    """Change what is given; another root file system or recipe makes a new version.

    ``expected_version`` is the version that the changes start from. Raises ``Conflict`` with the
    code ``template-changed`` when somebody has made another one since, ``Invalid``.
    """
    newest = _newest(template)
    if expected_version not in (None, newest.number):
        raise Conflict(
            f"The template “{template.name}” has changed meanwhile: version {newest.number} is "
            f"there, and this was made from version {expected_version}.",
            hint=f"See what changed: nexusctl template diff {template.name} "
            f"{expected_version} {newest.number}",
            code="template-changed",
            extra={"current_version": newest.number},
        )
    template = Template.objects.get(pk=template.pk)
    if name and name != template.name:
        template = rename_template(template, name)
    document = newest.recipe if recipe is None else recipe.document()
    changes: dict[str, Any] = {}
    if description is not None and _description(description) != template.description:
        template.description = changes["description"] = _description(description)
        template.save(update_fields=["description"])
    if document != newest.recipe or rootfs not in (None, newest.rootfs):
        changes["version"] = _add_version(newest, rootfs or newest.rootfs, document).number
    if changes:
        events.append("template.changed", template, **changes)
    return template


@transaction.atomic
def rename_template(template: Template, name: str) -> Template:
    """Give it another name. Raises ``Conflict``, ``Invalid``."""
    if name == template.name:
        return template
    _require_free(name)
    before, template.name = template.name, name
    template.save(update_fields=["name"])
    events.append("template.renamed", template, before=before)
    return template


@transaction.atomic
def revert_template(
    template: Template, number: int, *, expected_version: int | None = None
) -> Template:
    """Make a new version that says what version ``number`` says."""
    old = find_version(template, number)
    return update_template(
        template, rootfs=old.rootfs, recipe=old.parsed, expected_version=expected_version
    )


@transaction.atomic
def copy_template(template: Template, *, name: str = "", number: int | None = None) -> Template:
    """Another template whose first version is this one's (by default the current) version."""
    version = _newest(template) if number is None else find_version(template, number)
    return create_template(
        name=name,
        rootfs=version.rootfs,
        description=Template.objects.get(pk=template.pk).description,
        recipe=version.parsed,
    )


@transaction.atomic
def delete_template(template: Template) -> None:
    """Delete a template with its builds and their logs.

    An image can be made again only from the version that it was made of. So ``Conflict`` while
    one is here, and while a build runs.
    """
    builds = Build.objects.filter(template_version__template=template)
    _require_unused(template)
    logs = [log_path(build) for build in builds]
    events.append("template.deleted", template)
    builds.delete()
    template.delete()
    transaction.on_commit(partial(_remove, logs))


def template_for(rootfs: Rootfs, name: str) -> Template | None:
    """The template called ``name`` if its current version is ``rootfs`` and nothing else."""
    template = Template.objects.filter(name=name).first()
    if template is None:
        return None
    current = template.current
    plain = current.rootfs_id == rootfs.pk and not current.recipe
    return template if plain else None


def find_version(template: Template, number: int) -> TemplateVersion:
    """One version. Raises ``NotFound`` that says which there are."""
    version = _versions(template).filter(number=number).first()
    if version is None:
        newest = _newest(template).number
        raise NotFound(
            f"The template “{template.name}” has no version {number}.",
            hint=f"It has the versions 1 to {newest}." if newest > 1 else "It has version 1 alone.",
            code="template-version-not-found",
        )
    return version


def images_of(template: Template) -> list[Image]:
    """The images that were built from it and are here, by name."""
    made = Image.objects.filter(builds__template_version__template=template)
    return list(made.order_by("name").distinct())


def _newest(template: Template) -> TemplateVersion:
    """The newest version as it is in the database now."""
    return _versions(template).order_by("-number")[0]


def _versions(template: Template) -> QuerySet[TemplateVersion]:
    """All of them, whatever the caller has prefetched."""
    return TemplateVersion.objects.filter(template=template).select_related("rootfs")


def _add_version(
    newest: TemplateVersion, rootfs: Rootfs, document: dict[str, Any]
) -> TemplateVersion:
    return TemplateVersion.objects.create(
        template_id=newest.template_id, number=newest.number + 1, rootfs=rootfs, recipe=document
    )


def _require_unused(template: Template) -> None:
    running = Build.objects.filter(
        template_version__template=template, state=Build.State.RUNNING
    ).first()
    if running is not None:
        raise Conflict(
            f"The template “{template.name}” is being built.",
            hint=f"Wait for the build {running.ref}, or cancel it.",
            code="template-used",
        )
    names = [image.name for image in images_of(template)]
    if names:
        raise Conflict(
            f"The template “{template.name}” has made images that are here: "
            f"{', '.join(names[:5])}{', …' if len(names) > 5 else ''}.",
            detail="\n".join(names),
            hint="They can be made again only from it. Delete them first: "
            f"nexusctl image delete {names[0]}",
            code="template-used",
        )


def _require_free(name: str) -> None:
    check_name(name)
    if _template_exists(name):
        raise Conflict(
            f"There is a template “{name}” already.",
            hint="Choose another name, or leave it out to get one.",
            code="name-taken",
        )


def _remove(files: list[Path]) -> None:
    for file in files:
        file.unlink(missing_ok=True)


def _description(text: str) -> str:
    """One line of at most 200 characters."""
    line = " ".join(text.split())
    if len(line) > MAX_DESCRIPTION:
        raise Invalid(
            f"A description has at most {MAX_DESCRIPTION} characters.", code="description"
        )
    return line


def _template_exists(name: str) -> bool:
    return Template.objects.filter(name=name).exists()

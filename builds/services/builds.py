"""The rules about builds: when one starts, what it is called, and its log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet

from builds import pipeline
from builds.inputs import FORMAT, Inputs
from builds.log import log_path
from builds.models import Build, Making, Template, TemplateVersion
from builds.recipe import parse
from builds.workspace import remove_workspace
from guest_agent.binary import agent_digest
from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Conflict, NotFound
from nexus_site.core.ids import NexusID, check_name, free_name, is_id, resolve
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation, open_operations
from nexus_site.core.text import decode_piece

BUILD_DEADLINE = timedelta(hours=1)


@dataclass(frozen=True)
class LogPage:
    """A piece of a build's log: ``text`` from ``offset`` to ``next_offset`` of ``size`` bytes."""

    text: str
    offset: int
    next_offset: int
    size: int
    ended: bool


def inputs_for(version: TemplateVersion, name: str) -> Inputs:
    """All that an image called ``name`` would be built from now."""
    rootfs = version.rootfs
    recipe = parse(version.recipe)
    return Inputs(
        name=name,
        rootfs=f"{rootfs.distro} {rootfs.version} {rootfs.arch}",
        rootfs_sha256=rootfs.sha256,
        recipe=recipe.document(),
        size_mib=recipe.size_mib or settings.NEXUS.image_size_mib,
        agent_digest=agent_digest(rootfs.arch),
    )


def current_image(template: Template, image_name: str = "") -> Image | None:
    """The image that a build of the template would find unchanged."""
    return pipeline.kept_image(inputs_for(template.current, image_name or template.name))


@transaction.atomic
def trigger_build(
    template: Template,
    *,
    image_name: str = "",
    rebuild: bool = False,
    parent: Operation | None = None,
) -> Operation:
    """Build an image from the template's current version.

    Where its image is there, unchanged, the build finds it; ``rebuild`` makes another one all
    the same. Raises ``Conflict`` where another image is called ``image_name``.
    """
    inputs = inputs_for(template.current, image_name or template.name)
    while rebuild and Image.objects.filter(pk=inputs.image_id).exists():
        inputs = inputs.next_edition()
    if image_name:
        _check_image_name(image_name, inputs)
    kept = pipeline.kept_image(inputs)
    build = Build.objects.create(
        template_version=template.current,
        image_name=kept.name if kept else free_name(_image_name_taken, inputs.name),
        key=inputs.build_key,
        inputs=inputs.document(),
        agent_digest=inputs.agent_digest,
    )
    return _open(build, f"Build image {build.image_name}", parent=parent)


@transaction.atomic
def verify_image(image: Image) -> Operation:
    """Build an image again from the same inputs and compare, byte by byte.

    Raises ``Conflict`` where what it was made from, or the way to make it, is gone.
    """
    made = image.build
    if made is None:
        raise _unverifiable(image, "The record of its build is gone.")
    inputs = Inputs.from_document(image.inputs)
    if inputs.format != FORMAT:
        raise _unverifiable(image, "It was built by a version of Nexus that built otherwise.")
    if made.template_version.rootfs.sha256 != inputs.rootfs_sha256:
        raise _unverifiable(image, "Its root file system has been replaced.")
    build = Build.objects.create(
        template_version=made.template_version,
        image_name=image.name,
        key=inputs.build_key,
        inputs=image.inputs,
        agent_digest=inputs.agent_digest,
        verifies=image,
    )
    return _open(build, f"Verify image {image.name}", verify=True)


def find_build(rows: QuerySet[Build], ref: str) -> Build:
    """The build with this ID; else the newest that made what says ``build_id: ref`` inside."""
    try:
        return resolve(rows, ref)
    except NotFound:
        key = NexusID.parse(ref) if is_id(ref) else None
        made = rows.filter(key=key, state=Build.State.SUCCEEDED, verifies=None) if key else None
        build = made.order_by("created_at").first() if made is not None else None
        if build is None:
            raise
        return build


def read_log(build: Making, offset: int = 0, limit: int = 65536) -> LogPage:
    """At most ``limit`` bytes of the build's log from ``offset`` (negative: from its end)."""
    path = log_path(build)
    data, size, start = b"", 0, 0
    if path.exists():
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(size + offset, 0) if offset < 0 else min(offset, size)
            file.seek(start)
            data = file.read(limit)
    ended = build.state != Making.State.RUNNING
    text, taken = decode_piece(data)
    return LogPage(text, start, start + taken, size, ended)


def sweep() -> None:
    """Remove what builds that will never go on have left; run when a worker starts."""
    working = {operation.subject_id for operation in open_operations().filter(kind="build.run")}
    for build in Build.objects.exclude(pk__in=[ref for ref in working if ref]):
        remove_workspace(build)


def _open(
    build: Build, title: str, *, parent: Operation | None = None, **params: bool
) -> Operation:
    operation = open_operation(
        "build.run",
        title,
        subject=build,
        params={"build": build.ref} | params,
        parent=parent,
        deadline=BUILD_DEADLINE,
    )
    Build.objects.filter(pk=build.pk).update(operation_id=operation.id)
    events.append("build.started", build, template=build.template_version.template.name)
    return operation


def _check_image_name(name: str, inputs: Inputs) -> None:
    """Free, or the name of the very image that would be made."""
    check_name(name)
    others = Image.objects.filter(name=name).exclude(pk=inputs.image_id)
    running = Build.objects.filter(state=Build.State.RUNNING, image_name=name, verifies=None)
    if others.exists() or running.exclude(key=inputs.build_key).exists():
        raise Conflict(
            f"There is an image “{name}” already.",
            hint="Choose another name, or leave it out to get one.",
            code="name-taken",
        )


def _unverifiable(image: Image, reason: str) -> Conflict:
    return Conflict(
        f"“{image.name}” cannot be built again. {reason}",
        hint="Its digest still tells whether its file is what was published.",
        code="not-verifiable",
    )


def _image_name_taken(name: str) -> bool:
    running = Build.objects.filter(state=Build.State.RUNNING, image_name=name)
    return Image.objects.filter(name=name).exists() or running.exists()

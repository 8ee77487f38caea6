"""The rules about builds: when one starts, what it is called, and its log."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from django.db import transaction

from builds import pipeline
from builds.models import Build, Template
from guest_agent.binary import agent_digest
from images import services as image_services
from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import check_name, free_name
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


def current_image(template: Template) -> Image | None:
    """The newest image of the template's current version with the agent of this Nexus."""
    built = Build.objects.select_related("image").filter(
        template_version=template.current,
        state=Build.State.SUCCEEDED,
        image__isnull=False,
        agent_digest=agent_digest(image_services.host_arch()),
    )
    newest = built.order_by("-created_at").first()
    return newest.image if newest else None


@transaction.atomic
def trigger_build(
    template: Template, *, image_name: str = "", parent: Operation | None = None
) -> Operation:
    """Build an image from the template's current version."""
    if image_name:
        check_name(image_name)
        if _image_name_taken(image_name):
            raise Conflict(
                f"There is an image “{image_name}” already.",
                hint="Choose another name, or leave it out to get one.",
                code="name-taken",
            )
    build = Build.objects.create(
        template_version=template.current,
        image_name=free_name(_image_name_taken, image_name or template.name),
        agent_digest=agent_digest(image_services.host_arch()),
    )
    operation = open_operation(
        "build.run",
        f"Build image {build.image_name}",
        subject=build,
        params={"build": build.ref},
        parent=parent,
        deadline=BUILD_DEADLINE,
    )
    Build.objects.filter(pk=build.pk).update(operation_id=operation.id)
    events.append("build.started", build, template=template.name)
    return operation


def read_log(build: Build, offset: int = 0, limit: int = 65536) -> LogPage:
    """At most ``limit`` bytes of the build's log from ``offset`` (negative: from its end)."""
    path = pipeline.log_path(build)
    data, size, start = b"", 0, 0
    if path.exists():
        with path.open("rb") as file:
            size = file.seek(0, 2)
            start = max(size + offset, 0) if offset < 0 else min(offset, size)
            file.seek(start)
            data = file.read(limit)
    ended = build.state != Build.State.RUNNING
    text, taken = decode_piece(data)
    return LogPage(text, start, start + taken, size, ended)


def sweep() -> None:
    """Remove what builds that will never go on have left; run when a worker starts."""
    working = {operation.subject_id for operation in open_operations().filter(kind="build.run")}
    for build in Build.objects.exclude(pk__in=[ref for ref in working if ref]):
        pipeline.remove_workspace(build)


def _image_name_taken(name: str) -> bool:
    running = Build.objects.filter(state=Build.State.RUNNING, image_name=name)
    return Image.objects.filter(name=name).exists() or running.exists()

"""The rules about images: published once, never changed, deleted when nothing needs them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from django.conf import settings
from django.db import transaction

from images.digest import content_digest
from images.files import move_file
from images.models import Image, Rootfs
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


class Derived(Protocol):
    """What is made of images only to be quick, and goes with them."""

    def drives(self, image: Image) -> Sequence[NexusID]:
        """Drives of the image that belong to nobody."""

    def discard(self, image: Image, run: Run) -> str:
        """Delete all of it; says what. Safe to repeat."""


_derived: list[Derived] = []
_guards: list[Callable[[Image], None]] = []


def keep_derived(derived: Derived) -> None:
    """Called once by each room that makes such things."""
    _derived.append(derived)


def guard_images(guard: Callable[[Image], None]) -> None:
    """Have ``guard``, which raises ``Conflict`` for an image that is needed, asked before one is
    deleted; called once by each room that needs images for what is not made yet."""
    _guards.append(guard)


def path_of(image_id: NexusID) -> Path:
    """Where the file of an image with this ID is, or would be."""
    return Path(settings.NEXUS.data_dir) / "images" / f"{image_id}.ext4"


def image_path(image: Image) -> Path:
    """The image's file: a sparse, read-only ext4 file system."""
    return path_of(image.id)


def has_file(image: Image) -> bool:
    """Whether the image's file is there and has its size."""
    try:
        return image_path(image).stat().st_size == image.size_bytes
    except OSError:
        return False


def require_file(image: Image) -> Path:
    """The image's file. Raises ``Broken`` when it is missing or has another size."""
    path = image_path(image)
    if not has_file(image):
        raise Broken(
            f"The file of the image “{image.name}” is missing or damaged.",
            hint="Delete the image and build it again.",
            code="image-damaged",
        )
    return path


@dataclass(frozen=True)
class Provenance:
    """What an image came from, and what was found in it."""

    rootfs: Rootfs
    inputs: dict[str, Any]
    os_name: str
    packages: list[tuple[str, str]]
    init: str
    agent_version: str
    agent_digest: str


def publish_image(image_id: NexusID, name: str, source: Path, provenance: Provenance) -> Image:
    """Move ``source`` into the images and make its row; safe to repeat.

    An image that has lost its file gets it back. Raises ``Conflict`` where an image with this ID
    and other bytes is there.
    """
    target = path_of(image_id)
    digest = content_digest(source if source.exists() else target)
    present = Image.objects.filter(pk=image_id).first()
    if present is not None and present.digest != digest:
        raise Conflict(
            f"“{present.name}” was made from the same, but has other bytes.",
            hint="Delete that image, or build anew: nexusctl build trigger --rebuild",
            code="image-differs",
        )
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        move_file(source, target, 0o400)
    if present is not None:
        return present
    status = target.stat()
    with transaction.atomic():
        image = Image.objects.create(
            id=image_id,
            name=name,
            arch=provenance.rootfs.arch,
            size_bytes=status.st_size,
            used_bytes=status.st_blocks * 512,
            digest=digest,
            **vars(provenance),
        )
        events.append("image.created", image, os_name=image.os_name)
    return image


@transaction.atomic
def delete_image(image: Image) -> Operation:
    """Delete an image. Raises ``Conflict`` with what needs it, or was made from it."""
    for guard in _guards:
        guard(image)
    drives = image.drives.exclude(pk__in=[pk for kept in _derived for pk in kept.drives(image)])
    names = list(drives.values_list("name", flat=True)[:20])
    if names:
        raise Conflict(
            f"The image “{image.name}” is used by drives: {', '.join(names)}.",
            hint="Delete them first.",
            code="image-used",
            extra={"drives": names},
        )
    return open_operation(
        "image.delete", f"Delete image {image.name}", subject=image, params={"image": image.ref}
    )


def discard_image(image: Image) -> None:
    """Delete an image's row and file; safe to repeat."""
    path = image_path(image)
    with transaction.atomic():
        events.append("image.deleted", image)
        Image.objects.filter(pk=image.pk).delete()
    path.unlink(missing_ok=True)


# What workers run


def delete_plan(operation: Operation) -> Plan:
    return [
        Step("derived", "Delete what was kept of it to be quick", _delete_derived),
        Step("delete", "Delete the image", _delete),
    ]


def _delete_derived(run: Run) -> str | None:
    image = Image.objects.filter(pk=NexusID.parse(run.params["image"])).first()
    if image is None:
        return "it is gone already"
    for guard in _guards:
        guard(image)
    return ", ".join(kept.discard(image, run) for kept in _derived)


def _delete(run: Run) -> str | None:
    image = Image.objects.filter(pk=NexusID.parse(run.params["image"])).first()
    if image is None:
        return "it is gone already"
    discard_image(image)
    return None

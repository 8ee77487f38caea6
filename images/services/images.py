"""The rules about images: published once, never changed, deleted when nothing needs them."""

from __future__ import annotations

from pathlib import Path

from django.conf import settings
from django.db import transaction

from guest_agent.binary import agent_digest, agent_version
from images.digest import content_digest
from images.files import move_file
from images.models import Image, Rootfs
from nexus_site.core import events
from nexus_site.core.errors import Broken, Conflict
from nexus_site.core.ids import NexusID
from nexus_site.core.models import Operation
from nexus_site.core.operations import open_operation
from nexus_site.core.steps import Plan, Run, Step


def image_path(image: Image) -> Path:
    """The image's file: a sparse, read-only ext4 file system."""
    return Path(settings.NEXUS.data_dir) / "images" / f"{image.ref}.ext4"


def require_file(image: Image) -> Path:
    """The image's file. Raises ``Broken`` when it is missing or has another size."""
    path = image_path(image)
    if not path.exists() or path.stat().st_size != image.size_bytes:
        raise Broken(
            f"The file of the image “{image.name}” is missing or damaged.",
            hint="Delete the image and build it again.",
            code="image-damaged",
        )
    return path


def publish_image(
    image_id: NexusID, name: str, *, source: Path, rootfs: Rootfs, os_name: str
) -> Image:
    """Move ``source`` into the images and make its row; safe to repeat."""
    image = Image(
        id=image_id,
        name=name,
        rootfs=rootfs,
        arch=rootfs.arch,
        os_name=os_name,
        agent_version=agent_version(),
        agent_digest=agent_digest(rootfs.arch),
    )
    target = image_path(image)
    if source.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        move_file(source, target, 0o400)
    status = target.stat()
    image.size_bytes, image.used_bytes = status.st_size, status.st_blocks * 512
    image.digest = content_digest(target)
    with transaction.atomic():
        if not Image.objects.filter(pk=image_id).exists():
            image.save(force_insert=True)
            events.append("image.created", image, os_name=os_name)
    return image


@transaction.atomic
def delete_image(image: Image) -> Operation:
    """Delete an image. Raises ``Conflict`` with the drives that were made from it."""
    names = list(image.drives.values_list("name", flat=True)[:20])
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
    return [Step("delete", "Delete the image", _delete)]


def _delete(run: Run) -> str | None:
    image = Image.objects.filter(pk=NexusID.parse(run.params["image"])).first()
    if image is None:
        return "it is gone already"
    discard_image(image)
    return None

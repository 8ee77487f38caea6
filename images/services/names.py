"""What images are called."""

from __future__ import annotations

from django.db import transaction

from images.models import Image
from nexus_site.core import events
from nexus_site.core.errors import Conflict
from nexus_site.core.ids import check_name


@transaction.atomic
def rename_image(image: Image, name: str) -> Image:
    """Call an image something else; what it says inside stays. ``Conflict``, ``Invalid``."""
    before = image.name
    if name == before:
        return image
    check_name(name)
    if Image.objects.filter(name=name).exists():
        raise Conflict(
            f"There is an image “{name}” already.", hint="Choose another name.", code="name-taken"
        )
    image.name = name
    image.save(update_fields=["name"])
    events.append("image.renamed", image, before=before)
    return image

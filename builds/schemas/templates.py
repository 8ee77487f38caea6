"""What the JSON API of templates takes and gives."""

from __future__ import annotations

from datetime import datetime

from ninja import Field, Schema

from images.schemas import RootfsRef
from nexus_site.core.schemas import ID, Input


class TemplateVersionOut(Schema):
    """One edition of a template; never changes."""

    id: ID
    number: int
    rootfs: RootfsRef
    created_at: datetime


class TemplateOut(Schema):
    """A recipe for images; a build uses its ``current`` version."""

    id: ID
    name: str
    description: str
    current: TemplateVersionOut
    created_at: datetime


class CreateTemplate(Input):
    """Which root file system: by ``distro`` and ``version``, or by the ID ``rootfs``."""

    name: str = Field("", max_length=63, description="Left out, it is made of distro and version.")
    description: str = Field("", max_length=200)
    distro: str = Field("", max_length=40, examples=["alpine"])
    version: str = Field("", max_length=40, examples=["3.23"])
    rootfs: str = Field("", max_length=40, description="An ID; not with distro and version.")

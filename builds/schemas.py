"""What the JSON API of templates and builds takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema

from builds.models import Build
from images.schemas import RootfsRef
from nexus_site.core.schemas import ID, ErrorRecord, Input, Ref, TextPage, listed

BuildState = Annotated[Build.State, listed(Build.State)]


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


class TriggerBuild(Input):
    image_name: str = Field(
        default="", max_length=63, description="Left out, it is named after the template."
    )


class BuildOut(Schema):
    id: ID
    state: BuildState
    template: Ref
    template_version: int
    image_name: str
    image: Ref | None = Field(description="What it made; null until it has, or when deleted.")
    operation_id: ID | None
    error: ErrorRecord | None
    created_at: datetime
    ended_at: datetime | None

    @staticmethod
    def resolve_template(build: Build) -> Any:
        return build.template_version.template

    @staticmethod
    def resolve_template_version(build: Build) -> int:
        return build.template_version.number

    @staticmethod
    def resolve_error(build: Build) -> dict[str, Any] | None:
        return build.error or None


class BuildLog(TextPage):
    ended: bool = Field(description="Whether the build is over: nothing more will come.")

"""What the JSON API of builds takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any

from ninja import Field, Schema

from builds.models import Build
from nexus_site.core.schemas import ID, ErrorRecord, Input, Ref, TextPage, listed

BuildState = Annotated[Build.State, listed(Build.State)]


class TriggerBuild(Input):
    image_name: str = Field(
        default="", max_length=63, description="Left out, it is named after the template."
    )
    rebuild: bool = Field(
        default=False,
        description="Make another image even where nothing has changed since the last.",
    )


class BuildOut(Schema):
    id: ID
    state: BuildState
    template: Ref
    template_version: int
    image_name: str
    image: Ref | None = Field(description="What it made; null until it has, or when deleted.")
    verifies: Ref | None = Field(description="The image that it was to make again, if it was.")
    inputs: dict[str, Any] = Field(description="All that it was made from.")
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

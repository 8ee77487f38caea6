"""What the JSON API of templates takes and gives."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from ninja import Field, Schema
from pydantic import WrapValidator

from builds.models import TemplateVersion
from builds.recipe import Recipe, parse
from images.schemas import RootfsRef
from nexus_site.core.schemas import ID, Input

#: A recipe in a request; what is wrong with it is said as everywhere else.
RecipeIn = Annotated[Recipe, WrapValidator(lambda value, _: parse(value))]


class TemplateVersionOut(Schema):
    """One edition of a template; never changes."""

    id: ID
    number: int
    rootfs: RootfsRef
    created_at: datetime


class TemplateVersionDetail(TemplateVersionOut):
    """With its recipe: what is done to the root file system."""

    recipe: Recipe

    @staticmethod
    def resolve_recipe(version: TemplateVersion) -> Recipe:
        return version.parsed


class TemplateOut(Schema):
    """A recipe for images; a build uses its ``current`` version."""

    id: ID
    name: str
    description: str
    current: TemplateVersionOut
    created_at: datetime


class TemplateDetail(TemplateOut):
    """A template with its current recipe."""

    current: TemplateVersionDetail


class WhichRootfs(Input):
    """A root file system: by ``distro`` and ``version``, or by the ID ``rootfs``."""

    distro: str = Field("", max_length=40, examples=["alpine"])
    version: str = Field("", max_length=40, examples=["3.23"])
    provider: str = Field("", max_length=40, description="Where several have it.")
    rootfs: str = Field("", max_length=40, description="An ID; not with distro and version.")


class CreateTemplate(WhichRootfs):
    name: str = Field("", max_length=63, description="Left out, a name is generated.")
    description: str = Field("", max_length=200)
    recipe: RecipeIn | None = Field(None, description="Left out: the root file system as it is.")


class UpdateTemplate(WhichRootfs):
    """What is left out stays; another root file system or recipe makes a new version."""

    name: str = Field("", max_length=63)
    description: str | None = Field(None, max_length=200)
    recipe: RecipeIn | None = Field(None, description="All of it: what it leaves out is gone.")
    expected_version: int | None = Field(
        None, ge=1, description="The current version that this change was made from."
    )


class RevertTemplate(Input):
    version: int = Field(ge=1, description="The version to go back to, as a new one.")
    expected_version: int | None = Field(None, ge=1)


class CopyTemplate(Input):
    name: str = Field("", max_length=63, description="Left out, a name is generated.")
    version: int | None = Field(None, ge=1, description="Left out, the current one.")

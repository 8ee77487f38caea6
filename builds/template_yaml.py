"""A template as a document: what is exported, kept in a repository, edited and imported."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, Field, StringConstraints, ValidationError

from builds import yaml_text
from builds.models import Template, TemplateVersion
from builds.recipe import Fault, Overlay, Recipe, RecipePart, faults
from images.models import Rootfs
from nexus_site.core.errors import Invalid, NexusError
from nexus_site.core.ids import check_name


def _name(text: str) -> str:
    try:
        return check_name(text) if text else ""
    except NexusError as error:
        raise ValueError(error.text) from error


#: Characters from which on a file that would grow by being indented or escaped goes as base64.
LONG = 1 << 16

Word = Annotated[str, StringConstraints(max_length=40)]


class RootfsWish(RecipePart):
    """Which root file system: its bytes if ``sha256`` is there."""

    distro: Annotated[Word, StringConstraints(min_length=1)]
    version: Annotated[Word, StringConstraints(min_length=1)]
    provider: Word = ""
    sha256: Annotated[str, StringConstraints(pattern="^([0-9a-f]{64})?$")] = ""


class TemplateDocument(Recipe):
    """A whole template: its recipe, and what stands beside it."""

    name: Annotated[str, AfterValidator(_name)] = ""
    description: Annotated[str, StringConstraints(max_length=200)] = ""
    rootfs: RootfsWish = Field(...)

    @property
    def recipe(self) -> Recipe:
        return Recipe(**{name: getattr(self, name) for name in Recipe.model_fields})


def load(content: str | bytes) -> TemplateDocument:
    """The template in ``content``. Raises ``Invalid`` that names the line of what is wrong."""
    value, lines = yaml_text.read(content)
    if not isinstance(value, dict):
        yaml_text.refuse("A template is names with values: name, rootfs, packages…", 1)
    try:
        return TemplateDocument.model_validate(_values(value))
    except ValidationError as error:
        raise _invalid(faults(error), lines) from error


def dump(template: Template, version: TemplateVersion, *, header: bool = True) -> str:
    """A version as a document that ``load`` takes, here and on other servers."""
    text = dump_values(template.name, template.description, version.rootfs, version.parsed)
    if not header:
        return text
    day = version.created_at.date().isoformat()
    return (
        f"# Nexus template {template.name}, version {version.number} of {day}.\n"
        f"# Take it in: nexusctl template import FILE\n\n{text}"
    )


def dump_values(name: str, description: str, rootfs: Rootfs, recipe: Recipe) -> str:
    """What a version of these values would be as a document, without a header."""
    return yaml_text.write(
        _without_empty({"name": name, "description": description})
        | {"rootfs": _rootfs(rootfs)}
        | _recipe(recipe)
    )


def _recipe(recipe: Recipe) -> dict[str, Any]:
    """A recipe in the order that it is read in, without what has its usual value."""
    document = recipe.document() | {"overlays": [_overlay(each) for each in recipe.overlays]}
    order = ("init", "size_mib", "env", "overlays", "packages", "commands")
    return {name: document[name] for name in order if document.get(name)}


def _values(value: dict[str, Any]) -> dict[str, Any]:
    """The document with its one number as a number; a name without a value is not there."""
    given = {name: item for name, item in value.items() if item != ""}
    size = given.get("size_mib")
    if isinstance(size, str) and size.isascii() and size.isdecimal() and len(size) < 10:
        given["size_mib"] = int(size)
    if size in ("null", "~"):
        del given["size_mib"]
    return given


def _invalid(found: list[Fault], lines: dict[yaml_text.Location, int]) -> Invalid:
    placed = sorted(
        ((_line(fault.location, lines), fault) for fault in found), key=lambda pair: pair[0]
    )
    shown = [f"Line {line}: {fault}" for line, fault in placed]
    return Invalid(
        f"The template cannot be used. {shown[0]}",
        detail="\n".join(shown) if len(shown) > 1 else "",
        code="template-invalid",
        extra={
            "line": placed[0][0],
            "errors": [{"field": one.place, "message": one.reason} for _, one in placed],
        },
    )


def _line(location: yaml_text.Location, lines: dict[yaml_text.Location, int]) -> int:
    """The line of a place, or of the nearest thing around it that is in the document."""
    while location and location not in lines:
        location = location[:-1]
    return lines.get(location, 1)


def _rootfs(rootfs: Rootfs) -> dict[str, str]:
    fields = ("distro", "version", "provider", "sha256")
    return _without_empty({name: getattr(rootfs, name) for name in fields})


def _overlay(overlay: Overlay) -> dict[str, str]:
    content = {"content": overlay.content}
    dense = overlay.content.count("\n") * 16 > len(overlay.content)
    unwieldy = len(overlay.content) > LONG and (dense or not yaml_text.reads_well(overlay.content))
    if overlay.content_base64 or unwieldy:
        content = {"content_base64": overlay.as_base64()}
    return {"path": overlay.path, "mode": overlay.mode, "owner": overlay.owner} | content


def _without_empty(values: dict[str, str]) -> dict[str, str]:
    return {name: value for name, value in values.items() if value}

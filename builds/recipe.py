"""What a template says, beside its root file system: checked once, here, for every way in.

A recipe is data: it comes as JSON over the API, as YAML from files, from the form of the page,
and is kept as JSON with the template's version.
"""

from __future__ import annotations

import base64
import binascii
import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from images.entries import normal_path
from nexus_site.core.errors import Invalid, NexusError

MAX_OVERLAYS = 256
MAX_OVERLAY_TEXT = 1 << 20  # characters of one file
MAX_LIST = 256
MIN_SIZE_MIB, MAX_SIZE_MIB = 64, 16 << 20

Init = Literal["auto", "systemd", "openrc", "busybox", "none"]

_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_:@~=<>/-]{0,199}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_OWNER = re.compile(r"[0-9]{1,10}:[0-9]{1,10}\Z")


def _package(text: str) -> str:
    """A package manager's word, never an option or a path of its command line."""
    if not _PACKAGE.match(text):
        raise ValueError(f"no package is called {text!r}")
    return text


def _command(text: str) -> str:
    if not text.strip() or "\0" in text:
        raise ValueError("a command is a line of shell, not empty")
    return text


def _variable(name: str) -> str:
    if not _VARIABLE.match(name):
        raise ValueError(f"{name!r} is not the name of a variable")
    return name


def _value(text: str) -> str:
    if "\0" in text or "\n" in text:
        raise ValueError("a value has no newlines")
    return text


def _owner(text: str) -> str:
    if not _OWNER.match(text) or any(int(part) >= 2**32 for part in text.split(":")):
        raise ValueError("an owner is UID:GID, in numbers")
    return text


def _target(text: str) -> str:
    """The overlay's place: absolute for people, inside the image whatever it says."""
    try:
        path = normal_path(text)
    except NexusError as error:
        raise ValueError(error.text) from error
    if not path:
        raise ValueError("a file cannot be the root directory")
    return f"/{path}"


Package = Annotated[str, AfterValidator(_package)]
Command = Annotated[str, StringConstraints(max_length=16384), AfterValidator(_command)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, StringConstraints(max_length=8192), AfterValidator(_value)]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Overlay(_Part):
    """One file that is put into the image: ``content`` as text, or ``content_base64``."""

    path: Annotated[str, StringConstraints(max_length=4096), AfterValidator(_target)]
    content: str = Field("", max_length=MAX_OVERLAY_TEXT)
    content_base64: str = Field("", max_length=MAX_OVERLAY_TEXT)
    mode: str = Field("0644", pattern=r"^[0-7]{3,4}$", description="Octal digits.")
    owner: Annotated[str, AfterValidator(_owner)] = Field("0:0", description="UID:GID")

    @model_validator(mode="after")
    def _one_content(self) -> Self:
        if self.content and self.content_base64:
            raise ValueError("give content or content_base64, not both")
        try:
            self.data()
        except (binascii.Error, UnicodeEncodeError) as error:
            raise ValueError(f"the content cannot be read: {error}") from error
        return self

    def data(self) -> bytes:
        """The file's bytes."""
        if self.content_base64:
            return base64.b64decode(self.content_base64, validate=True)
        return self.content.encode()


class Recipe(_Part):
    """What is done to the root file system, in this order: overlays, packages, commands."""

    overlays: list[Overlay] = Field(default_factory=list, max_length=MAX_OVERLAYS)
    packages: list[Package] = Field(default_factory=list, max_length=MAX_LIST)
    commands: list[Command] = Field(default_factory=list, max_length=MAX_LIST)
    env: dict[Variable, Value] = Field(default_factory=dict, max_length=MAX_LIST)
    init: Init = "auto"
    size_mib: int | None = Field(
        None,
        ge=MIN_SIZE_MIB,
        le=MAX_SIZE_MIB,
        description="Of the image; null: the server's usual.",
    )

    @model_validator(mode="after")
    def _overlays_differ(self) -> Self:
        paths = [overlay.path for overlay in self.overlays]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"two overlays are called {path}")
        return self

    @property
    def needs_machine(self) -> bool:
        """Whether something has to run inside the system to be built."""
        return bool(self.packages or self.commands)

    def document(self) -> dict[str, Any]:
        """As JSON, what has its usual value left out: equal recipes have equal documents."""
        return self.model_dump(mode="json", exclude_defaults=True)


def parse(document: object) -> Recipe:
    """The recipe in ``document``. Raises ``Invalid`` that names every place that is wrong."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        places = [_place(item["loc"], item["msg"]) for item in error.errors()]
        raise Invalid(
            f"The recipe cannot be used: {places[0]}",
            detail="\n".join(places),
            hint="Put it right and save it again.",
            code="recipe-invalid",
            extra={"errors": places},
        ) from error


def _place(location: tuple[int | str, ...], message: str) -> str:
    """``overlays[2].path: …``, counted from 1 as people do."""
    shown = "".join(f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in location)
    reason = message.removeprefix("Value error, ")
    return f"{shown.lstrip('.')}: {reason}" if shown else reason

"""What a template says, beside its root file system: checked once, here, for every way in.

A recipe is data: it comes as JSON over the API, as YAML from files, from the form of the page,
and is kept as JSON with the template's version.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
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
MAX_TEXT = 1 << 20  # bytes of all files, commands and values together
MAX_LIST = 256
MIN_SIZE_MIB, MAX_SIZE_MIB = 64, 16 << 20

Init = Literal["auto", "systemd", "openrc", "busybox", "none"]

_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_:@~=<>/-]{0,199}\Z")
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}\Z")
_CONTROL = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f]")
_MODE = re.compile(r"[0-7]{3,4}\Z")
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


def _mode(text: str) -> str:
    if not _MODE.match(text):
        raise ValueError("a mode is three or four octal digits, such as 0644")
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


def _text(data: bytes) -> str | None:
    """``data`` as people write text; None when it is something else."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return None
    return None if _CONTROL.search(text) else text


def _compact(text: str) -> str:
    """Base64 as one line, however it was broken."""
    return "".join(text.split())


Package = Annotated[str, AfterValidator(_package)]
Command = Annotated[str, StringConstraints(max_length=16384), AfterValidator(_command)]
Variable = Annotated[str, AfterValidator(_variable)]
Value = Annotated[str, StringConstraints(max_length=8192), AfterValidator(_value)]


class RecipePart(BaseModel):
    """Plain values, of exactly the types that are asked for, and no others beside them."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Overlay(RecipePart):
    """One file that is put into the image: ``content`` as text, or ``content_base64``."""

    path: Annotated[str, StringConstraints(max_length=4096), AfterValidator(_target)]
    content: str = Field("", max_length=MAX_TEXT)
    content_base64: Annotated[str, AfterValidator(_compact)] = Field(
        "", max_length=MAX_TEXT * 3 // 2
    )
    mode: Annotated[str, AfterValidator(_mode)] = Field("0644", description="Octal digits.")
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

    def document(self) -> dict[str, Any]:
        """As JSON; the same bytes are written one way, however they were given."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        text = _text(self.data()) if self.content_base64 else None
        if text is not None:
            del document["content_base64"]
            document["content"] = text
        return document

    def as_base64(self) -> str:
        """The file's bytes, in lines that people can look at."""
        return base64.encodebytes(self.data()).decode()


class Recipe(RecipePart):
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
    def _overlays_fit(self) -> Self:
        paths = [overlay.path for overlay in self.overlays]
        for path in paths:
            if paths.count(path) > 1:
                raise ValueError(f"two overlays are called {path}")
            inside = next((other for other in paths if other.startswith(f"{path}/")), None)
            if inside:
                raise ValueError(f"{path} is a file, so {inside} cannot be in it")
        return self

    @model_validator(mode="after")
    def _text_is_bounded(self) -> Self:
        files = sum(len(overlay.data()) for overlay in self.overlays)
        rest = sum(len(text.encode()) for text in (*self.commands, *self.env.values()))
        if files + rest > MAX_TEXT:
            raise ValueError(f"files, commands and values have more than {MAX_TEXT} bytes")
        return self

    @property
    def needs_machine(self) -> bool:
        """Whether something has to run inside the system to be built."""
        return bool(self.packages or self.commands)

    def document(self) -> dict[str, Any]:
        """As JSON, what has its usual value left out: equal recipes have equal documents."""
        document = self.model_dump(mode="json", exclude_defaults=True)
        if self.overlays:
            document["overlays"] = [overlay.document() for overlay in self.overlays]
        return document


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong with a document, and where."""

    location: tuple[int | str, ...]
    reason: str

    @property
    def place(self) -> str:
        """``overlays[2].path``, counted from 1 as people do; empty for the whole."""
        shown = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in self.location]
        return "".join(shown).lstrip(".")

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}" if self.location else self.reason


def parse(document: object) -> Recipe:
    """The recipe in ``document``. Raises ``Invalid`` that names every place that is wrong."""
    try:
        return Recipe.model_validate(document)
    except ValidationError as error:
        found = faults(error)
        raise Invalid(
            f"The recipe cannot be used: {found[0]}",
            detail="\n".join(str(fault) for fault in found) if len(found) > 1 else "",
            hint="Put it right and save it again.",
            code="recipe-invalid",
            extra={"errors": [{"field": one.place, "message": one.reason} for one in found]},
        ) from error


def faults(error: ValidationError) -> list[Fault]:
    """What pydantic found wrong, in our words."""
    found = []
    for item in error.errors():
        location = tuple(part for part in item["loc"] if part != "[key]")
        message = _MESSAGES.get(item["type"], item["msg"]).removeprefix("Value error, ")
        found.append(Fault(location, message.replace("Input should", "it should")))
    return found


_MESSAGES = {
    "extra_forbidden": "there is nothing of this name",
    "missing": "it is missing",
    "string_type": "it should be text",
    "list_type": "it should be a list",
    "dict_type": "it should be names with values",
    "model_type": "it should be names with values",
}
